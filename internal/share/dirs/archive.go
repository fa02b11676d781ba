package dirs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/fault"
	"sharevol.dev/sharevol/internal/volume"
)

// archiveTop returns the directory at the share root that has the archive of a volume.
func archiveTop(owner Owner) string { return "archived-" + owner.Volume }

// archivePath returns what the directory of t becomes.
func archivePath(t Target) string { return archiveTop(t.Owner) + "/" + string(t.SubDir) }

// Archive moves a volume directory to archived-<volume>/<subDir> at the share root,
// then drops its record. It returns the archive's path; if there was nothing to
// archive, none. No archive is ever overwritten: the directory archived-<volume> is
// recorded exclusively, and within it is nothing but the way to the archive.
func (r *Root) Archive(ctx context.Context, t Target) (string, error) {
	c, err := r.beginTarget(ctx, t)
	if err != nil {
		return "", err
	}
	defer c.end()
	if top := archiveTop(t.Owner); len(top) > maxName {
		return "", untouched(fmt.Errorf("%s: a name has at most %d bytes", top, maxName))
	}
	var name string
	err = retry(func() error {
		left, err := c.takeOver(ctx, t)
		if err != nil {
			return err
		}
		if name, err = c.archive(ctx, t); !left {
			err = t.unproven(err)
		}
		return err
	})
	return name, c.result(err)
}

func (c *call) archive(ctx context.Context, t Target) (string, error) {
	mine, err := c.own(ctx, t)
	if errors.Is(err, ErrTaken) {
		return "", c.over(ctx, t, err)
	}
	if err != nil {
		return "", err
	}
	dir, err := c.findMade(ctx, t, mine)
	if err != nil {
		return "", err
	}
	defer dir.close()
	if dir == nil {
		return c.archived(ctx, t, mine)
	}
	if err := c.moveToArchive(ctx, t, dir); err != nil {
		return "", c.undoArchive(ctx, t, dir, err)
	}
	return c.archived(ctx, t, mine)
}

// undoArchive takes back what was made for an archive if the server has said
// clearly that it will not do the rest.
func (c *call) undoArchive(ctx context.Context, t Target, dir *found, err error) error {
	if !isDefinite(err) || errors.Is(err, errMoved) {
		return err
	}
	if failed := c.dropArchive(ctx, t); failed != nil {
		return fmt.Errorf("%v; when this was undone: %w", err, failed)
	}
	c.changed.Store(false)
	if errors.Is(err, ErrConflict) {
		// What is there already may be what another call for this volume moved there.
		now, failed := c.root.findDir(t.SubDir)
		if failed != nil {
			return failed
		}
		defer now.close()
		if now == nil || now.stat.identity != dir.stat.identity {
			return errMoved
		}
	}
	return err
}

// archived ends what is left to do when the directory of t is not in its place.
func (c *call) archived(ctx context.Context, t Target, mine *record) (string, error) {
	name := archivePath(t)
	there, err := c.exists(name)
	if err != nil {
		return "", err
	}
	if !there {
		name = ""
	}
	if mine == nil {
		return name, nil
	}
	if there {
		err = c.dropRecord(ctx, archiveTop(t.Owner), kindArchive, t.Owner)
	} else {
		err = c.dropArchive(ctx, t)
	}
	if err != nil {
		return "", err
	}
	return name, c.forgetGone(ctx, t)
}

// moveToArchive makes the archive's parents and moves the directory there.
func (c *call) moveToArchive(ctx context.Context, t Target, dir *found) error {
	to, err := c.makeArchive(ctx, t)
	if err != nil {
		return err
	}
	defer to.close()
	fault.Point("archive-made")
	if _, err := statFile(to.dir, fresh); err != nil {
		return stepError("stat", path.Dir(to.shown), err)
	}
	_, err = statAt(to.dir, to.name, fresh)
	switch {
	case err == nil:
		return conflictf("%s exists: nothing was moved there", to.shown)
	case !errors.Is(err, unix.ENOENT):
		return stepError("stat", to.shown, err)
	}
	err = c.move(ctx, dir, to, "archived")
	if errors.Is(err, unix.EXDEV) {
		return fmt.Errorf("%s can't be archived, as it is on another file system than the share root: %w", t.SubDir, err)
	}
	return err
}

// makeArchive returns the place of the archive, and makes the directories above it.
func (c *call) makeArchive(ctx context.Context, t Target) (_ *place, err error) {
	top := archiveTop(t.Owner)
	there, err := c.put(ctx, newRecord(kindArchive, top, t.Owner, false))
	if err != nil {
		return nil, err
	}
	if there != nil && !there.isOf(kindArchive, t.Owner) {
		return nil, there.conflict(top, t.Owner)
	}
	at, rest := c.root.start(archivePath(t))
	defer func() {
		if err != nil {
			at.close()
		}
	}()
	for _, next := range rest {
		err := c.change(ctx, func() error { return unix.Mkdirat(int(at.dir.Fd()), at.name, parentMode) })
		made := err == nil
		switch {
		case errors.Is(err, unix.ENOENT):
			return nil, errMoved
		case err != nil && !errors.Is(err, unix.EEXIST):
			return nil, stepError("mkdir", at.shown, err)
		}
		dir, err := c.openParent(ctx, at, made)
		if err != nil {
			return nil, err
		}
		at.enter(dir, next)
		if !made {
			if err := c.checkArchive(ctx, t, dir, next); err != nil {
				return nil, err
			}
		}
	}
	return at, nil
}

// checkArchive looks into a directory on the way to the archive's place that was
// there before this call. An earlier one, or another one at the same time, has made
// nothing in it but the entry that leads on. All else is somebody's.
func (c *call) checkArchive(ctx context.Context, t Target, dir *os.File, next string) error {
	top := archiveTop(t.Owner)
	if err := c.refresh(); err != nil {
		return err
	}
	parent, err := c.parent(top) // of volumes that are being made in it, or were
	if err != nil {
		return err
	}
	if parent != nil {
		if gone, err := c.removeUnused(ctx, top); err != nil {
			return err
		} else if gone {
			return errMoved
		}
	}
	names, err := firstNames(dir, 2)
	if err != nil {
		return stepError("read", dir.Name(), err)
	}
	if parent == nil && (len(names) == 0 || len(names) == 1 && names[0] == next) {
		return nil
	}
	if err := c.dropRecord(ctx, top, kindArchive, t.Owner); err != nil {
		return err
	}
	return conflictf("%s exists, with something else in it: nothing was moved there", top)
}

// dropArchive removes the record of the archive of t, and what was made for it if
// that is empty.
func (c *call) dropArchive(ctx context.Context, t Target) error {
	top := archiveTop(t.Owner)
	r, err := c.record(top)
	if err != nil || r == nil || !r.isOf(kindArchive, t.Owner) {
		return err
	}
	parents := parentsOf(archivePath(t))
	for i := len(parents) - 1; i >= 0; i-- {
		dir, err := c.root.findDir(volume.SubDir(parents[i]))
		if isBarred(err) {
			break
		}
		if err != nil {
			return err
		}
		if dir == nil {
			continue
		}
		err = c.rmdir(ctx, dir)
		dir.close()
		if err != nil {
			return err
		}
	}
	return c.dropRecord(ctx, top, kindArchive, t.Owner)
}
