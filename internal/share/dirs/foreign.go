package dirs

import (
	"context"
	"errors"
	"strings"
)

// beginForeign is begin for a volume that another provisioner made. The share may
// never have been used by sharevol: then it gets an id, if the directory is there.
func (r *Root) beginForeign(ctx context.Context, t Target) (*call, error) {
	c, err := r.begin(ctx, t.ShareID, false)
	if !errors.Is(err, errNoFolder) {
		return c, err
	}
	if err := r.enter(ctx); err != nil {
		return nil, untouched(err)
	}
	dir, err := r.findDir(t.SubDir)
	dir.close()
	r.leave()
	switch {
	case err != nil:
		return nil, untouched(err)
	case dir == nil:
		return nil, &kindError{
			error: untouched(errors.New(string(t.SubDir) + " is not there, and the share has no id that would tell it from another one in its place: " +
				"is this the share that the volume was made on?")),
			kind: ErrOtherShare,
		}
	}
	return r.begin(ctx, "", true)
}

// takeOver records a directory that another provisioner made as that of t, so that
// it can be removed or archived like any other: from the record on nobody else gets
// the place, and a call that repeats this one after a crash goes on. A link, a file,
// another file system, and whatever is recorded for another volume at, above or
// below the place is a conflict. Without a directory there is nothing to take over.
func (c *call) takeOver(ctx context.Context, t Target) error {
	if !t.Foreign {
		return nil
	}
	if err := c.refresh(); err != nil {
		return err
	}
	sub := string(t.SubDir)
	mine, err := c.record(sub)
	switch {
	case err != nil:
		return err
	case mine != nil && !mine.isOf(kindVolume, t.Owner):
		return mine.conflict(sub, t.Owner)
	case mine != nil && mine.Retain:
		return conflictf("%s was made to be retained, and other volumes may use it: left as it is", sub)
	}
	dir, err := c.root.findDir(t.SubDir)
	if dir == nil || err != nil {
		return err
	}
	defer dir.close()
	if dir.isRoot {
		return conflictf("%s is the root of another file system: left as it is", sub)
	}
	if mine == nil {
		if err := c.claimForeign(ctx, t); err != nil {
			return err
		}
	}
	return c.mark(ctx, sub, t.Owner)
}

// claimForeign makes the record of t, whose directory is there. If the place turns
// out to be another volume's too, the record goes again.
func (c *call) claimForeign(ctx context.Context, t Target) error {
	// By its name alone, what is in the trash would be taken for this volume's.
	left, err := c.findTrashed(ctx, t)
	if err != nil {
		return err
	}
	if left != nil {
		left.close()
		return conflictf("%s is there, of another volume of this name: %s is left as it is until that is gone", left.shown, t.SubDir)
	}
	sub := string(t.SubDir)
	there, err := c.put(ctx, newRecord(kindVolume, sub, t.Owner, false))
	switch {
	case err != nil:
		return err
	case there != nil && !there.isOf(kindVolume, t.Owner):
		return there.conflict(sub, t.Owner)
	}
	// In this order: whoever comes now sees the record, and whoever was there before
	// is seen.
	if err = c.checkAround(ctx, t); errors.Is(err, ErrConflict) {
		if failed := c.dropRecord(ctx, sub, kindVolume, t.Owner); failed != nil {
			return failed
		}
		c.changed.Store(false)
	}
	return err
}

// checkAround says if a volume or an archive is recorded above or below t, of
// whatever cluster.
func (c *call) checkAround(ctx context.Context, t Target) error {
	sub := string(t.SubDir)
	if err := c.refresh(); err != nil {
		return err
	}
	for _, parent := range parentsOf(sub) {
		if err := c.checkParent(parent, t.Owner); err != nil {
			return err
		}
	}
	below, err := c.records(ctx, func(r record) bool { return strings.HasPrefix(r.SubDir, sub+"/") })
	if err != nil || len(below) == 0 {
		return err
	}
	other := below[0]
	return newRecord(kindVolume, string(other.SubDir), other.Owner, other.Retain).conflict(string(other.SubDir), t.Owner)
}

// own returns what err means for t. That another volume has the place proves nothing
// about a foreign one, which may have been there first.
func (t Target) own(err error) error {
	var kind *kindError
	if t.Foreign && errors.Is(err, ErrTaken) && errors.As(err, &kind) {
		return conflictf("%v", err)
	}
	return err
}
