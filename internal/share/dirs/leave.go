package dirs

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"
)

// Release drops the record of a volume whose directory stays, as somebody's data
// from now on. A record that is missing, or that of another volume that uses the
// directory too, is success.
func (r *Root) Release(ctx context.Context, t Target) error {
	c, err := r.beginTarget(ctx, t)
	if err != nil {
		return err
	}
	defer c.end()
	return c.result(retry(func() error { return c.releaseVolume(ctx, t) }))
}

func (c *call) releaseVolume(ctx context.Context, t Target) error {
	if err := c.refresh(); err != nil {
		return err
	}
	mine, err := c.record(string(t.SubDir))
	if err != nil {
		return err
	}
	if mine == nil || !mine.isOf(kindVolume, t.Owner) {
		// If its record is lost, its mark would keep the place.
		if marked, err := c.marked(string(t.SubDir), t.Owner); err != nil || !marked {
			return err
		}
	}
	if err := c.unlink(ctx, markName(string(t.SubDir), t.Owner)); err != nil {
		return err
	}
	return c.dropRecord(ctx, string(t.SubDir), kindVolume, t.Owner)
}

// Drop drops the record of a volume that does not exist, so that nobody will ever
// delete it. Of its directory, its archive and its place in the trash, what is
// empty goes too, unless it was there before, or others may share it. All data stays.
func (r *Root) Drop(ctx context.Context, t Target) error {
	c, err := r.beginTarget(ctx, t)
	if err != nil {
		return err
	}
	defer c.end()
	return c.result(retry(func() error { return c.dropVolume(ctx, t) }))
}

func (c *call) dropVolume(ctx context.Context, t Target) error {
	if err := c.refresh(); err != nil {
		return err
	}
	mine, err := c.record(string(t.SubDir))
	if err == nil && mine == nil {
		mine, err = c.restore(ctx, string(t.SubDir), t.Owner)
	}
	if err != nil || mine == nil || !mine.isOf(kindVolume, t.Owner) {
		return err
	}
	if err := c.dropArchive(ctx, t); err != nil {
		return err
	}
	if err := c.dropTrash(ctx, t); err != nil {
		return err
	}
	if err := c.dropDir(ctx, t, *mine); err != nil {
		return err
	}
	return c.forget(ctx, t)
}

// dropDir removes the directory of t if sharevol made it, it is empty, and nobody
// else can use it: one that is retained, and finished, may be others' too.
func (c *call) dropDir(ctx context.Context, t Target, mine record) error {
	dir, err := c.root.findDir(t.SubDir)
	if isBarred(err) {
		return nil
	}
	if dir == nil || err != nil {
		return err
	}
	defer dir.close()
	made, err := c.isMade(t.SubDir, t.Owner, dir)
	if err != nil || !made || dir.isRoot {
		return err
	}
	if mine.Retain {
		if unfinished, err := dir.isUnfinished(); err != nil || !unfinished {
			return err
		}
	}
	return c.rmdir(ctx, dir)
}

// dropTrash removes the volume's place in the trash if it is empty.
func (c *call) dropTrash(ctx context.Context, t Target) error {
	left, err := c.findTrashed(ctx, t)
	if left == nil || err != nil {
		if errors.Is(err, ErrConflict) {
			err = nil
		}
		return err
	}
	defer left.close()
	return c.rmdir(ctx, left)
}

// rmdir removes the directory if it is empty, and leaves it otherwise.
func (c *call) rmdir(ctx context.Context, dir *found) error {
	err := c.change(ctx, func() error { return unix.Unlinkat(int(dir.dir.Fd()), dir.name, unix.AT_REMOVEDIR) })
	if errors.Is(err, unix.ENOENT) || isNotEmpty(err) {
		return nil
	}
	return stepError("rmdir", dir.shown, err)
}
