package share

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// unfinishedMode is what a volume directory is made with, before it gets its own
// mode. Nobody would choose it, so that a directory that still has it after a
// crash is known to be ours and unfinished.
const unfinishedMode = 0o500

const openDirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// unclear are the errors of a call that may have taken effect on the server.
var unclear = []error{unix.EIO, unix.ETIMEDOUT, unix.EINTR, unix.ESTALE}

// createDir makes the directory name in root with the given mode. See Manager.Create.
func createDir(root int, name string, mode uint32) error {
	err := unix.Mkdirat(root, name, unfinishedMode)
	made := err == nil
	if err != nil && !errors.Is(err, unix.EEXIST) {
		pathErr := &os.PathError{Op: "mkdir", Path: name, Err: err}
		if slices.ContainsFunc(unclear, func(e error) bool { return errors.Is(err, e) }) {
			return pathErr
		}
		return fmt.Errorf("%w: %w", ErrUntouched, pathErr)
	}
	fd, err := unix.Openat(root, name, openDirFlags, 0)
	switch {
	case err != nil && isNoDirectory(err) && !made:
		return fmt.Errorf("%w: %w", ErrUntouched, openError(name, err))
	case err != nil:
		return openError(name, err)
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
	fd, err := unix.Openat(root, name, openDirFlags, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return openError(name, err)
	}
	// Takes over fd; its name is used only in errors.
	t := &tree{top: os.NewFile(uintptr(fd), name), dev: stat.Dev, progress: progress}
	defer func() { _ = t.top.Close() }()
	return t.removeDir(ctx, root, name, t.top, name, 0)
}

// maxDepth is how many directories below one another are open at a time. Pods can
// make trees of any depth: what is deeper is moved up into the volume directory.
const maxDepth = 50

// tree removes what is in one volume directory.
type tree struct {
	top      *os.File // the volume directory
	dev      uint64   // the share's file system; another one below it is not ours to empty
	progress func()
	removed  int // entries so far
}

// removeDir removes the open directory dir, which is name in parent. shown is its
// path in errors, depth its distance from the volume directory.
func (t *tree) removeDir(ctx context.Context, parent int, name string, dir *os.File, shown string, depth int) error {
	var stat unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &stat); err != nil {
		return &os.PathError{Op: "stat", Path: shown, Err: err}
	}
	if stat.Dev != t.dev {
		return fmt.Errorf("%s is another file system inside the volume: not removed", shown)
	}
	// Removing while reading may skip entries, a client that still writes may add
	// some, and deep directories are moved up: read again as long as that helps.
	for fruitless := 0; ; {
		before := t.removed
		if err := t.empty(ctx, dir, shown, depth); err != nil {
			return err
		}
		err := unix.Unlinkat(parent, name, unix.AT_REMOVEDIR)
		if err == nil || errors.Is(err, unix.ENOENT) {
			t.step()
			return nil
		}
		if fruitless++; t.removed > before {
			fruitless = 0
		}
		if fruitless == 3 || !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
			return &os.PathError{Op: "rmdir", Path: shown, Err: err}
		}
	}
}

func (t *tree) step() {
	t.removed++
	t.progress()
}

// empty removes the entries of dir.
func (t *tree) empty(ctx context.Context, dir *os.File, shown string, depth int) error {
	if _, err := dir.Seek(0, io.SeekStart); err != nil {
		return err
	}
	for {
		names, err := dir.Readdirnames(1000)
		for _, name := range names {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := t.removeEntry(ctx, dir, name, path.Join(shown, name), depth+1); err != nil {
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

// removeEntry removes the entry name of dir, or moves it up if it is too deep.
func (t *tree) removeEntry(ctx context.Context, dir *os.File, name, shown string, depth int) error {
	err := unix.Unlinkat(int(dir.Fd()), name, 0)
	switch {
	case err == nil:
		t.step()
		return nil
	case errors.Is(err, unix.ENOENT):
		return nil
	case !errors.Is(err, unix.EISDIR):
		return &os.PathError{Op: "unlink", Path: shown, Err: err}
	}
	if depth > maxDepth {
		// Whatever it may replace up there is an empty directory, to be removed as well.
		if err := unix.Renameat(int(dir.Fd()), name, int(t.top.Fd()), rand.Text()); err != nil {
			return &os.PathError{Op: "move", Path: shown, Err: err}
		}
		t.step()
		return nil
	}
	fd, err := unix.Openat(int(dir.Fd()), name, openDirFlags, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return openError(shown, err)
	}
	sub := os.NewFile(uintptr(fd), shown)
	defer func() { _ = sub.Close() }()
	return t.removeDir(ctx, int(dir.Fd()), name, sub, shown, depth)
}

// openError says plainly what O_DIRECTORY|O_NOFOLLOW refuses.
func openError(shown string, err error) error {
	if isNoDirectory(err) {
		return fmt.Errorf("%s is a link or a file, not a directory: left alone", shown)
	}
	return &os.PathError{Op: "open", Path: shown, Err: err}
}

func isNoDirectory(err error) bool { return errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) }
