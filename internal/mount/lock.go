package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrPending says that a mount(8) which was killed, or whose program was, has not
// ended: it may still put something on its target.
var ErrPending = errors.New("an earlier command is still running")

// lockParent locks target's parent directory for one mount(8), which inherits the lock: it
// lasts until that and all that it started have ended, whatever becomes of this
// process. ErrPending: it is locked already.
func lockParent(target string) (*os.File, error) { return flockParent(target, unix.LOCK_EX) }

func flockParent(target string, how int) (*os.File, error) {
	// os.Open closes it in other commands that are started meanwhile.
	dir, err := os.Open(filepath.Dir(target))
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(dir.Fd()), how|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("%w: another process began to mount on %s", ErrPending, target)
	}
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return dir, nil
}

// unlock gives up this process's lock. A command that has inherited it, and has not
// ended, keeps it.
func unlock(dir *os.File, ended bool) {
	if ended {
		// Another command that is just being started has a copy for a moment, with which
		// closing alone would not free it.
		_ = unix.Flock(int(dir.Fd()), unix.LOCK_UN)
	}
	_ = dir.Close() // it was only opened
}

// Pending returns an error that matches ErrPending while a mount(8) on target that
// was killed, or (see Options.Exclusive) whose program was, may still mount something
// there. To know that nothing is mounted, ask Pending first, and then Layers.
func (m *Mounter) Pending(target string) error {
	target, err := canonical(target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return m.pending(target)
}

func (m *Mounter) pending(target string) error {
	if err := m.runner.check(job{"mount", target}); err != nil || !m.options.Exclusive {
		return err
	}
	dir, err := flockParent(target, unix.LOCK_SH)
	if errors.Is(err, fs.ErrNotExist) { // and with it the target
		return nil
	}
	if err != nil {
		return err
	}
	unlock(dir, true)
	return nil
}
