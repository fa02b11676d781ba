package check

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/share"
)

const (
	// defaultDir is where the provisioner mounts its shares, too: in its pod there is
	// no other place to write to.
	defaultDir = "/run/sharevol"
	// roomPrefix begins the names of rooms. The provisioner's mounts have others.
	roomPrefix = "check-"
	// sweepTimeout bounds what is done about other rooms.
	sweepTimeout = 20 * time.Second
)

// room is a folder for the mounts of one check. It is locked for as long as the check
// runs, however that ends, so that a later one can tell what was left behind.
type room struct {
	base, path string
	madeBase   bool
	lock       *os.File
}

// newRoom makes a room in the folder base, and takes away what checks that were
// killed have left mounted in theirs.
func newRoom(ctx context.Context, base string, mounter share.Mounter) (*room, error) {
	if base == "" {
		base = defaultDir
	}
	r := &room{base: base}
	if err := os.Mkdir(base, 0o700); err == nil {
		r.madeBase = true
	} else if !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	sweep(ctx, base, mounter)
	var err error
	// Another check may take a room that is not locked yet for one that was left.
	for range 3 {
		if err = r.enter(); err == nil {
			return r, nil
		}
	}
	return nil, errors.Join(err, r.removeBase())
}

// enter makes and locks the folder.
func (r *room) enter() (err error) {
	if r.path, err = os.MkdirTemp(r.base, roomPrefix); err != nil {
		return err
	}
	if r.lock, err = lockDir(r.path); err != nil {
		return fmt.Errorf("lock %s: %w", r.path, err)
	}
	mine, err := r.lock.Stat()
	if err == nil {
		var now fs.FileInfo
		if now, err = os.Lstat(r.path); err == nil && os.SameFile(mine, now) {
			return nil
		}
	}
	return fmt.Errorf("%s was removed: %w", r.path, errors.Join(err, r.lock.Close()))
}

// leave removes the room. What is mounted there must be unmounted before.
func (r *room) leave() error {
	err := errors.Join(unix.Rmdir(r.path), r.lock.Close())
	if err != nil {
		return fmt.Errorf("remove %s: %w", r.path, err)
	}
	return r.removeBase()
}

// removeBase removes the folder of all rooms if this check has made it and nobody
// else uses it.
func (r *room) removeBase() error {
	if !r.madeBase {
		return nil
	}
	if err := unix.Rmdir(r.base); err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove %s: %w", r.base, err)
	}
	return nil
}

// lockDir opens a folder, which must be no link, and locks it until it is closed, by
// the end of the process if need be. It does not wait.
func lockDir(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	dir := os.NewFile(uintptr(fd), path)
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return dir, nil
}

// sweep unmounts and removes what is in the rooms of checks that are gone. What it can't
// take away is left: it is in nobody's way.
func sweep(ctx context.Context, base string, mounter share.Mounter) {
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	for _, name := range entries(base) {
		if !strings.HasPrefix(name, roomPrefix) {
			continue
		}
		path := filepath.Join(base, name)
		dir, err := lockDir(path)
		if err != nil {
			continue // somebody's who is at work
		}
		for _, mounted := range entries(path) {
			if mounter.Unmount(ctx, filepath.Join(path, mounted)) == nil {
				_ = unix.Rmdir(filepath.Join(path, mounted))
			}
		}
		_ = unix.Rmdir(path)
		_ = dir.Close()
	}
}

// entries returns the names in a folder, without a look at what is behind them: a
// server may be dead.
func entries(path string) []string {
	dir, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer func() { _ = dir.Close() }()
	var all []string
	for {
		names, err := dir.Readdirnames(100)
		all = append(all, names...)
		if err != nil || errors.Is(err, io.EOF) {
			return all
		}
	}
}
