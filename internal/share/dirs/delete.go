package dirs

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/fault"
	"sharevol.dev/sharevol/internal/volume"
)

// Delete removes a volume directory with all that is in it, then its record. The
// directory goes to the trash first, in one step, and is removed there; what an
// earlier Delete has left in the trash is removed without looking for another. A
// volume of which nothing is left is success.
//
// It has no end of its own: it goes on while it progresses, and calls progress, if
// that is not nil, after each step, one call at a time. When ctx ends it stops
// between two files, and a repeated Delete goes on from there.
func (r *Root) Delete(ctx context.Context, t Target, progress func()) error {
	c, err := r.beginTarget(ctx, t)
	if err != nil {
		return err
	}
	defer c.end()
	return c.result(retry(func() error {
		if err := c.takeOver(ctx, t); err != nil {
			return err
		}
		return t.own(c.delete(ctx, t, progress))
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

func (c *call) delete(ctx context.Context, t Target, progress func()) error {
	mine, ownErr := c.own(t)
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
		return ownErr
	case left != nil && mine == nil:
		return conflictf("%s is there without a record of %s: left as it is", left.shown, t.SubDir)
	case left != nil:
		return c.removeTrashed(ctx, t, left, progress)
	}
	dir, err := c.findMade(t, mine)
	if err != nil {
		return err
	}
	defer dir.close()
	if dir == nil {
		return c.gone(ctx, t, mine)
	}
	return c.throwAway(ctx, t, dir, progress)
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
func (c *call) throwAway(ctx context.Context, t Target, dir *found, progress func()) error {
	trash, err := c.openTrash(ctx, true)
	if err != nil {
		return err
	}
	to := c.trashed(trash, t)
	defer to.close()
	err = c.move(ctx, dir, to, "renamed")
	switch {
	case errors.Is(err, unix.EXDEV):
		return c.removeVolume(ctx, t, dir, progress)
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
	return c.removeTrashed(ctx, t, left, progress)
}

// removeTrashed is removeVolume of what is in the trash. The mark goes before it: it
// must not speak for what comes in its place meanwhile, perhaps by hand.
func (c *call) removeTrashed(ctx context.Context, t Target, dir *found, progress func()) error {
	if err := c.unlink(ctx, markName(string(t.SubDir), t.Owner)); err != nil {
		return err
	}
	return c.removeVolume(ctx, t, dir, progress)
}

// removeVolume removes the tree dir, which is all that is left of the volume, then
// what is recorded of it.
func (c *call) removeVolume(ctx context.Context, t Target, dir *found, progress func()) error {
	if err := c.removeTree(ctx, dir, progress); err != nil {
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
// Its record goes last: as long as there is anything to do, it says so.
func (c *call) forget(ctx context.Context, t Target) error {
	if err := c.unlink(ctx, markName(string(t.SubDir), t.Owner)); err != nil {
		return err
	}
	if err := c.removeParents(ctx, string(t.SubDir)); err != nil {
		return err
	}
	if err := c.dropRecord(ctx, string(t.SubDir), kindVolume, t.Owner); err != nil {
		return err
	}
	fault.Point("dropped")
	return nil
}

// own returns the record of t, nil if there is none. One of another volume is
// ErrTaken: it was made after that of t was dropped, as the last step of all. One
// that can't be read, or says that the data stays, is a conflict.
func (c *call) own(t Target) (*record, error) {
	if err := c.refresh(); err != nil {
		return nil, err
	}
	r, err := c.record(string(t.SubDir))
	switch {
	case err != nil || r == nil:
		return nil, err
	case r.Kind == kindVolume && r.owner() != t.Owner:
		return nil, &kindError{error: r.conflict(string(t.SubDir), t.Owner), kind: ErrTaken}
	case !r.isOf(kindVolume, t.Owner):
		return nil, r.conflict(string(t.SubDir), t.Owner)
	case r.Retain:
		return nil, conflictf("%s was made to be retained, and other volumes may use it: left as it is", t.SubDir)
	}
	return r, nil
}

// findMade returns the directory of t, nil if it is missing. One that the records
// do not prove to be made for t is a conflict.
func (c *call) findMade(t Target, mine *record) (*found, error) {
	dir, err := c.root.findDir(t.SubDir)
	if dir == nil || err != nil {
		return nil, err
	}
	made := false
	switch {
	case mine == nil:
		err = conflictf("%s has no record that sharevol made it for this volume: left as it is", t.SubDir)
	case dir.isRoot:
		err = conflictf("%s is the root of another file system: left as it is", t.SubDir)
	default:
		if made, err = c.isMade(t.SubDir, t.Owner, dir); err == nil && !made {
			err = c.notMade(t, dir)
		}
	}
	if err != nil {
		dir.close()
		return nil, err
	}
	return dir, nil
}

// notMade is what a directory without a mark comes to. Another call that has moved
// it away drops the mark then.
func (c *call) notMade(t Target, dir *found) error {
	now, err := c.root.findDir(t.SubDir)
	if err != nil {
		return err
	}
	defer now.close()
	if now == nil || now.stat.identity != dir.stat.identity {
		return errMoved
	}
	return conflictf("%s was there before sharevol recorded it for this volume: left as it is", t.SubDir)
}

// isMade says whether sharevol made the directory for its owner: it is marked, or
// empty and unfinished.
func (c *call) isMade(sub volume.SubDir, owner Owner, dir *found) (bool, error) {
	marked, err := c.marked(string(sub), owner)
	if marked || err != nil {
		return marked, err
	}
	return dir.isUnfinished()
}
