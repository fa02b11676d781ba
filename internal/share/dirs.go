package share

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// unfinishedMode is what a volume directory is made with, before it gets its own
// mode. Nobody would choose it, so that a directory that still has it after a
// crash is known to be ours and unfinished.
const unfinishedMode = 0o500

const openDirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// createDir makes the directory name in root with the given mode. See Manager.Create.
func createDir(root int, name string, mode uint32) error {
	err := unix.Mkdirat(root, name, unfinishedMode)
	made := err == nil
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return &os.PathError{Op: "mkdir", Path: name, Err: err}
	}
	fd, err := unix.Openat(root, name, openDirFlags, 0)
	if err != nil {
		return notADirectory("open", name, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if !made {
		var stat unix.Stat_t
		if err := unix.Fstat(fd, &stat); err != nil {
			return &os.PathError{Op: "stat", Path: name, Err: err}
		}
		// Its owner may have changed the mode of a finished one: not ours to undo.
		if stat.Mode&0o777 != unfinishedMode {
			return nil
		}
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return &os.PathError{Op: "chmod", Path: name, Err: err}
	}
	return nil
}

// removeDir removes the directory name in root and all that is in it. See Manager.Remove.
func removeDir(ctx context.Context, root int, name string, progress func()) error {
	var stat unix.Stat_t
	if err := unix.Fstat(root, &stat); err != nil {
		return &os.PathError{Op: "stat", Path: ".", Err: err}
	}
	t := tree{dev: stat.Dev, progress: progress}
	err := t.remove(ctx, root, name, name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// tree removes what is in one volume directory.
type tree struct {
	dev      uint64 // the share's file system; another one below it is not ours to empty
	progress func()
}

// remove removes the directory name in the open directory parent. shown is its
// path in errors.
func (t tree) remove(ctx context.Context, parent int, name, shown string) error {
	fd, err := unix.Openat(parent, name, openDirFlags, 0)
	if err != nil {
		return notADirectory("open", shown, err)
	}
	// Takes over fd; its name is used only in errors.
	dir := os.NewFile(uintptr(fd), shown)
	defer func() { _ = dir.Close() }()
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return &os.PathError{Op: "stat", Path: shown, Err: err}
	}
	if stat.Dev != t.dev {
		return fmt.Errorf("%s is another file system inside the volume: not removed", shown)
	}
	// Removing while reading may skip entries, and a client that still writes may
	// add some: read again while anything is there, but not for ever.
	for range 5 {
		if err := t.empty(ctx, dir, shown); err != nil {
			return err
		}
		err = unix.Unlinkat(parent, name, unix.AT_REMOVEDIR)
		if !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
			break
		}
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "rmdir", Path: shown, Err: err}
	}
	t.progress()
	return nil
}

// empty removes the entries of dir.
func (t tree) empty(ctx context.Context, dir *os.File, shown string) error {
	if _, err := dir.Seek(0, io.SeekStart); err != nil {
		return err
	}
	for {
		names, err := dir.Readdirnames(1000)
		for _, name := range names {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := t.removeEntry(ctx, int(dir.Fd()), name, path.Join(shown, name)); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (t tree) removeEntry(ctx context.Context, dir int, name, shown string) error {
	err := unix.Unlinkat(dir, name, 0)
	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		t.progress()
		return nil
	case errors.Is(err, unix.EISDIR):
		if err = t.remove(ctx, dir, name, shown); errors.Is(err, unix.ENOENT) {
			return nil
		}
		return err
	}
	return &os.PathError{Op: "unlink", Path: shown, Err: err}
}

// notADirectory says plainly what O_DIRECTORY|O_NOFOLLOW refuses.
func notADirectory(op, shown string, err error) error {
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return fmt.Errorf("%s %s: it is a link or a file, not a directory: left alone", op, shown)
	}
	return &os.PathError{Op: op, Path: shown, Err: err}
}
