package dirs

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/fault"
)

// Delete removes a volume directory with all that is in it, then its record. The
// directory goes to the trash first, in one step, and is removed there; what an
// earlier Delete has left in the trash is removed without looking for another. A
// volume of which nothing is left is success.
//
// It has no end of its own: it goes on while it progresses; see WithProgress. When ctx
// ends it stops between two files, and a repeated Delete goes on from there.
func (r *Root) Delete(ctx context.Context, t Target) error {
	c, err := r.beginTarget(ctx, t)
	if err != nil {
		return err
	}
	defer c.end()
	return c.result(retry(func() error {
		left, err := c.takeOver(ctx, t)
		if err != nil {
			return err
		}
		if err = c.delete(ctx, t); !left {
			err = t.unproven(err)
		}
		return err
	}))
}

func (r *Root) beginTarget(ctx context.Context, t Target) (*call, error) {
	if err := t.check(); err != nil {
		return nil, untouched(err)
	}
	if t.Foreign {
		return r.beginForeign(ctx, t)
	}
	return r.begin(ctx, t.ShareID, false)
}

func (c *call) delete(ctx context.Context, t Target) error {
	mine, ownErr := c.own(ctx, t)
	if ownErr != nil && !errors.Is(ownErr, ErrTaken) {
		return ownErr
	}
	left, err := c.findTrashed(ctx, t)
	if err != nil {
		return err
	}
	defer left.close()
	switch {
	case left == nil && ownErr != nil:
		return c.over(ctx, t, ownErr)
	case left != nil && mine == nil:
		return c.removeLeft(ctx, t, left)
	case left != nil:
		return c.removeTrashed(ctx, t, left)
	}
	dir, err := c.findMade(ctx, t, mine)
	if err != nil {
		return err
	}
	defer dir.close()
	if dir == nil {
		return c.gone(ctx, t, mine)
	}
	return c.throwAway(ctx, t, dir)
}

// gone ends what is left to do for a volume that is not in its place. In this order:
// another call may have moved it to the trash in between.
func (c *call) gone(ctx context.Context, t Target, mine *record) error {
	left, err := c.findTrashed(ctx, t)
	switch {
	case err != nil:
		return err
	case left != nil:
		left.close()
		return errMoved
	case mine == nil:
		return nil
	}
	return c.forgetGone(ctx, t)
}

// throwAway moves the directory of t to the trash and removes it there, or where it
// is if it is on another file system than the trash.
func (c *call) throwAway(ctx context.Context, t Target, dir *found) error {
	trash, err := c.openTrash(ctx, true)
	if err != nil {
		return err
	}
	to := c.trashed(trash, t)
	defer to.close()
	err = c.move(ctx, dir, to, "renamed")
	switch {
	case errors.Is(err, unix.EXDEV):
		return c.removeVolume(ctx, t, dir)
	case err != nil:
		return err
	}
	left, err := c.findTrashed(ctx, t)
	if err != nil {
		return err
	}
	if left == nil {
		return errMoved
	}
	defer left.close()
	return c.removeTrashed(ctx, t, left)
}

// removeTrashed is removeVolume of what is in the trash. The mark is retired before: it
// must not speak for what comes in its place meanwhile, perhaps by hand.
func (c *call) removeTrashed(ctx context.Context, t Target, dir *found) error {
	if err := c.retire(ctx, string(t.SubDir), t.Owner); err != nil {
		return err
	}
	return c.removeVolume(ctx, t, dir)
}

// removeLeft removes what is in the trash of a volume whose record was lost, and whose
// place another one has taken. Its mark proves that it is the volume's.
func (c *call) removeLeft(ctx context.Context, t Target, dir *found) error {
	mine, _, err := c.lost(string(t.SubDir), t.Owner)
	if err != nil {
		return err
	}
	if mine == nil {
		return conflictf("%s is there without a record of %s: left as it is", dir.shown, t.SubDir)
	}
	if err := c.retire(ctx, string(t.SubDir), t.Owner); err != nil {
		return err
	}
	if err := c.removeTree(ctx, dir); err != nil {
		return err
	}
	return errMoved // now it is only taken
}

// over ends a volume that is ErrTaken, as taken says.
func (c *call) over(ctx context.Context, t Target, taken error) error {
	if err := c.dropMarks(ctx, string(t.SubDir), t.Owner); err != nil {
		return err
	}
	return taken
}

// removeVolume removes the tree dir, which is all that is left of the volume, then
// what is recorded of it.
func (c *call) removeVolume(ctx context.Context, t Target, dir *found) error {
	if err := c.removeTree(ctx, dir); err != nil {
		return err
	}
	fault.Point("removed")
	return c.forgetGone(ctx, t)
}

// forgetGone is forget of a volume whose directory is gone. Whoever has tried to make
// one below it meanwhile may have left a parent in its place.
func (c *call) forgetGone(ctx context.Context, t Target) error {
	if _, err := c.removeUnused(ctx, string(t.SubDir)); err != nil {
		return err
	}
	return c.forget(ctx, t)
}

// forget removes what is recorded of a volume, and the parents that it leaves empty.
// Its record goes last: as long as there is anything to do, it says so. If that is
// lost, the mark does, which goes before it.
func (c *call) forget(ctx context.Context, t Target) error {
	if err := c.retire(ctx, string(t.SubDir), t.Owner); err != nil {
		return err
	}
	if err := c.removeParents(ctx, string(t.SubDir)); err != nil {
		return err
	}
	if err := c.unlink(ctx, leftName(string(t.SubDir), t.Owner)); err != nil {
		return err
	}
	if err := c.dropRecord(ctx, string(t.SubDir), kindVolume, t.Owner); err != nil {
		return err
	}
	fault.Point("dropped")
	return nil
}
