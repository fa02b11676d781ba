package nfsmount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrUnended says that a mount(8) which was killed, or whose program was, has not
// ended: it may still put something on its target.
var ErrUnended = errors.New("an earlier command has not ended")

// hold locks target's parent directory for one mount(8), which inherits the lock: it
// lasts until that and all that it started have ended, whatever becomes of this
// process. ErrUnended: it is locked already.
func hold(target string) (*os.File, error) { return lock(target, unix.LOCK_EX) }

func lock(target string, how int) (*os.File, error) {
	// os.Open closes it in other commands that are started meanwhile.
	dir, err := os.Open(filepath.Dir(target))
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(dir.Fd()), how|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("%w: a mount(8) that another process began works on %s", ErrUnended, target)
	}
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return dir, nil
}

// letGo ends this process's hold. The command's own goes on unless it has ended.
func letGo(dir *os.File, ended bool) {
	if ended {
		// Another command that is just being started has a copy for a moment, with which
		// closing alone would not free it.
		_ = unix.Flock(int(dir.Fd()), unix.LOCK_UN)
	}
	_ = dir.Close() // it was only opened
}

// Unended returns an error that matches ErrUnended while a mount(8) on target that
// was killed, or (see Options.Exclusive) whose program was, may still mount something
// there. Who wants to know that nothing is mounted asks this first, and then Layers.
func (m *Mounter) Unended(target string) error {
	target, err := canonical(target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return m.unended(target)
}

func (m *Mounter) unended(target string) error {
	if err := m.runner.check(job{"mount", target}); err != nil || !m.options.Exclusive {
		return err
	}
	dir, err := lock(target, unix.LOCK_SH)
	if errors.Is(err, fs.ErrNotExist) { // and with it the target
		return nil
	}
	if err != nil {
		return err
	}
	letGo(dir, true)
	return nil
}
