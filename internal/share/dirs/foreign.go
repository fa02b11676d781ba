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
// the place, and a call that repeats this one after a crash goes on. The mark says that
// all was looked at. A link, a file, another file system, another share, and whatever is
// recorded for another volume at, above or below the place is a conflict. Without a
// directory there is nothing to take over.
//
// It says whether the directory of t has left its place, by its mark: then what is there
// has come since, and only what is left of t is to be removed.
func (c *call) takeOver(ctx context.Context, t Target) (left bool, err error) {
	if !t.Foreign {
		return false, nil
	}
	if err := c.refresh(); err != nil {
		return false, err
	}
	sub := string(t.SubDir)
	mine, err := c.record(sub)
	if err != nil {
		return false, err
	}
	marked, left, err := c.lost(sub, t.Owner)
	switch {
	case left || err != nil:
		return left, err
	case mine != nil && !mine.isOf(kindVolume, t.Owner):
		return false, mine.conflict(sub, t.Owner)
	case mine != nil && mine.Retain || marked != nil && marked.Retain:
		return false, conflictf("%s was made to be retained, and other volumes may use it: left as it is", sub)
	}
	dir, err := c.root.findDir(t.SubDir)
	if dir == nil || err != nil {
		return false, err
	}
	defer dir.close()
	if dir.isRoot {
		return false, conflictf("%s is the root of another file system: left as it is", sub)
	}
	if err := c.lookInside(ctx, dir); err != nil || mine != nil && marked != nil {
		return false, err
	}
	if err := c.claimForeign(ctx, t, marked != nil); err != nil {
		return false, err
	}
	return false, c.mark(ctx, newRecord(kindVolume, sub, t.Owner, false))
}

// claimForeign makes the record of t, whose directory is there. If the place turns
// out to be another volume's too, the record goes again. marked says that an earlier
// call has taken the directory over, and that its record was lost since.
func (c *call) claimForeign(ctx context.Context, t Target, marked bool) error {
	// By its name alone, what is in the trash would be taken for this volume's.
	left, err := c.findTrashed(ctx, t)
	if err != nil {
		return err
	}
	if left != nil {
		left.close()
		if !marked {
			return conflictf("%s is there, of another volume of this name: %s is left as it is until that is gone", left.shown, t.SubDir)
		}
	}
	sub, changed := string(t.SubDir), c.changed.Load()
	there, err := c.put(ctx, newRecord(kindVolume, sub, t.Owner, false))
	switch {
	case err != nil:
		return err
	case there != nil && !there.isOf(kindVolume, t.Owner):
		return there.conflict(sub, t.Owner)
	}
	// In this order: whoever comes now sees the record, and whoever was there before
	// is seen. After a crash in between it is done again, as there is no mark.
	if err = c.checkAround(ctx, t); errors.Is(err, ErrConflict) {
		if failed := c.dropRecord(ctx, sub, kindVolume, t.Owner); failed != nil {
			return failed
		}
		c.changed.Store(changed)
	}
	return err
}

// checkAround says if a volume or an archive is recorded above or below t, of
// whatever cluster, or marked there or at t, where its record is lost.
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
	if err := c.checkMarks(sub, t.Owner); err != nil {
		return err
	}
	around, err := c.records(ctx, func(r record) bool {
		return strings.HasPrefix(r.SubDir, sub+"/") || strings.HasPrefix(sub, r.SubDir+"/")
	})
	if err != nil || len(around) == 0 {
		return err
	}
	return around[0].conflict(around[0].SubDir, t.Owner)
}

// unproven returns what err means for t. That another volume has the place proves
// nothing about a foreign one, which may have been there first.
func (t Target) unproven(err error) error {
	var kind *kindError
	if t.Foreign && errors.Is(err, ErrTaken) && errors.As(err, &kind) {
		return conflictf("%v", err)
	}
	return err
}
