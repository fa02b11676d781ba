package dirs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/fault"
)

// misplacedPrefix begins the names in the trash of what could not be put back.
const misplacedPrefix = "misplaced-"

// openTrash opens the trash. If there is none it returns nil, or makes it.
func (c *call) openTrash(ctx context.Context, create bool) (*os.File, error) {
	trash, err := c.root.subfolder(ctx, c.folder.dir, trashName, folderName+"/"+trashName, create)
	if errors.Is(err, errNoFolder) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	// What the client remembers of its entries is fresh then.
	if _, err := statFile(trash, fresh); err != nil {
		_ = trash.Close()
		return nil, stepError("stat", folderName+"/"+trashName, err)
	}
	return trash, nil
}

// trashed is the place of t in the open trash.
func (c *call) trashed(trash *os.File, t Target) *place {
	return &place{dir: trash, name: t.Owner.Volume, shown: folderName + "/" + trashName + "/" + t.Owner.Volume, owned: true}
}

// findTrashed returns what the trash has of t, nil if nothing.
func (c *call) findTrashed(ctx context.Context, t Target) (*found, error) {
	trash, err := c.openTrash(ctx, false)
	if trash == nil || err != nil {
		return nil, err
	}
	at := c.trashed(trash, t)
	left, err := openFound(at)
	if left == nil {
		at.close()
	}
	return left, err
}

// move renames the directory from to the place to, where nothing is. What was
// renamed is then compared with what was checked: something else is put back. An
// error that matches EXDEV says that nothing was moved, as they are on two file systems.
func (c *call) move(ctx context.Context, from *found, to *place, point string) error {
	rename := func() error {
		return c.change(ctx, func() error {
			return unix.Renameat(int(from.dir.Fd()), from.name, int(to.dir.Fd()), to.name)
		})
	}
	err := rename()
	if isDenied(err) && c.change(ctx, func() error { return makeAccessible(from.file) }) == nil {
		// A new parent means a change of the directory itself, which its mode may
		// forbid even to its owner.
		err = rename()
		defer func() { _ = chmodPath(from.file, from.stat.perm()) }()
	}
	switch {
	case err == nil:
		fault.Point(point)
	case errors.Is(err, unix.ENOENT), isNotEmpty(err):
		return errMoved // another call for the same volume
	default:
		return stepError("rename", from.shown, err)
	}
	// The client believes that it has moved what it had opened.
	lookAgain(to.dir, to.name)
	now, err := statAt(to.dir, to.name, fresh)
	if errors.Is(err, unix.ENOENT) {
		return errMoved // and removed already
	}
	if err != nil {
		return stepError("stat", to.shown, err)
	}
	// If what was checked is gone, another may have its number.
	held, err := statFile(from.file, fresh)
	if err == nil && held.links > 0 && now.identity == from.stat.identity {
		return nil
	}
	if err != nil && !errors.Is(err, unix.ESTALE) {
		return stepError("stat", to.shown, err)
	}
	removed := err != nil || held.links == 0
	err = c.putBack(ctx, from, to)
	if removed && errors.Is(err, unix.ENOENT) {
		// What was checked is gone, and nothing is left to be put back: another call for
		// the same volume has moved and removed it. (Seen on NFS, with eight calls at once.)
		return errMoved
	}
	return err
}

// putBack moves what is at to, and is not what was checked, back to from.
func (c *call) putBack(ctx context.Context, from *found, to *place) error {
	back := *from.place
	there, err := c.exists(from.shown)
	if there || err != nil {
		// It must not stay under the name of the volume, where it would be removed.
		back = place{dir: to.dir, name: misplacedPrefix + rand.Text(), shown: to.shown + " as " + misplacedPrefix + "..."}
		back.shown = folderName + "/" + trashName + "/" + back.name
	}
	err = c.change(ctx, func() error {
		return unix.Renameat(int(to.dir.Fd()), to.name, int(back.dir.Fd()), back.name)
	})
	if err != nil {
		return fmt.Errorf("%s was replaced while it was moved, and what is now %s belongs there: %w", from.shown, to.shown, stepError("rename", to.shown, err))
	}
	return fmt.Errorf("%s was replaced while it was moved: what had been put there is at %s", from.shown, back.shown)
}
