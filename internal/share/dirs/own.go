package dirs

import (
	"context"

	"sharevol.dev/sharevol/internal/volume"
)

// own returns the record of t, nil if there is none; one that is lost is put back. One
// of another volume is ErrTaken: it was made after that of t was dropped, as the last
// step of all. One that can't be read, or says that the data stays, is a conflict.
func (c *call) own(ctx context.Context, t Target) (*record, error) {
	if err := c.refresh(); err != nil {
		return nil, err
	}
	r, err := c.record(string(t.SubDir))
	if err == nil && r == nil {
		r, err = c.restoreToRemove(ctx, string(t.SubDir), t.Owner)
	}
	switch {
	case err != nil || r == nil:
		return nil, err
	case r.Kind == kindVolume && r.owner() != t.Owner:
		return nil, c.taken(t, *r)
	case !r.isOf(kindVolume, t.Owner):
		return nil, r.conflict(string(t.SubDir), t.Owner)
	case r.Retain:
		return nil, conflictf("%s was made to be retained, and other volumes may use it: left as it is", t.SubDir)
	}
	return r, nil
}

// taken is what the record r of another volume in the place of t comes to. ErrTaken
// says that nothing of t is there. If the record of t was lost, the directory may be
// there still, and the other one may be about to find that out.
func (c *call) taken(t Target, r record) error {
	if err := c.refresh(); err != nil {
		return err
	}
	sub, conflict := string(t.SubDir), r.conflict(string(t.SubDir), t.Owner)
	marked, err := c.marked(sub, t.Owner)
	if err != nil {
		return err
	}
	if marked {
		there, err := c.exists(sub)
		if err != nil {
			return err
		}
		theirs, err := c.marked(sub, r.owner())
		if err != nil {
			return err
		}
		if there && !theirs {
			return conflict
		}
	}
	return &kindError{error: conflict, kind: ErrTaken}
}

// findMade returns the directory of t, nil if it is missing, or what is there came
// after it had left. One that the records do not prove to be made for t is a conflict.
func (c *call) findMade(ctx context.Context, t Target, mine *record) (*found, error) {
	dir, err := c.root.findDir(t.SubDir)
	if dir == nil || err != nil {
		return nil, err
	}
	made, left := false, false
	switch {
	case mine == nil:
		err = conflictf("%s has no record that sharevol made it for this volume: left as it is", t.SubDir)
	case dir.isRoot:
		err = conflictf("%s is the root of another file system: left as it is", t.SubDir)
	default:
		if made, err = c.isMade(t.SubDir, t.Owner, dir); err == nil && made {
			err = c.lookInside(ctx, dir)
		} else if err == nil {
			left, err = c.notMade(t, dir)
		}
	}
	if left || err != nil {
		dir.close()
		return nil, err
	}
	return dir, nil
}

// lookInside finds out what the mode of the directory has hidden, which it may do even
// from its owner: whether it is the root of another share.
func (c *call) lookInside(ctx context.Context, dir *found) error {
	if !dir.hidden {
		return nil
	}
	if failed := c.change(ctx, func() error { return makeAccessible(dir.file) }); isEnded(failed) {
		return failed
	}
	defer func() { _ = chmodPath(dir.file, dir.stat.perm()) }()
	return checkShare(dir.file, dir.shown)
}

// notMade is what a directory without a mark comes to: left if it has come in the
// place of the one of t. Another call that has moved it away retires the mark then.
func (c *call) notMade(t Target, dir *found) (left bool, err error) {
	now, err := c.root.findDir(t.SubDir)
	if err != nil {
		return false, err
	}
	defer now.close()
	if now == nil || now.stat.identity != dir.stat.identity {
		return false, errMoved
	}
	if left, err := c.hasLeft(string(t.SubDir), t.Owner); left || err != nil {
		return left, err
	}
	return false, conflictf("%s was there before sharevol recorded it for this volume: left as it is", t.SubDir)
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
