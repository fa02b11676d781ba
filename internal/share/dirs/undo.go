package dirs

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// confirm sees to it that the record and the directory are there at the end. If
// another call for the same owner has made either of them, it may have failed and
// undone it.
func (n *creation) confirm(ctx context.Context, dir *found) error {
	age := cached
	if !n.recorded || n.isOurs && !n.made {
		age = fresh
		there, err := n.put(ctx, newRecord(kindVolume, string(n.SubDir), n.Owner, n.Retain))
		if err != nil {
			return err
		}
		if there != nil && !there.isOf(kindVolume, n.Owner) {
			return there.conflict(string(n.SubDir), n.Owner)
		}
	}
	st, err := statFile(dir.file, age)
	if errors.Is(err, unix.ESTALE) || err == nil && st.links == 0 {
		return errMoved
	}
	return stepError("stat", dir.shown, err)
}

// undo takes back what this call has made, if the server has said clearly that it
// will not do the rest; otherwise whoever repeats the call goes on from here.
func (n *creation) undo(ctx context.Context, err error) error {
	if !isDefinite(err) {
		return err
	}
	var undone bool
	failed := retry(func() (failed error) {
		undone, failed = n.takeBack(ctx, errors.Is(err, ErrConflict))
		return failed
	})
	if failed != nil {
		return fmt.Errorf("%v; when this was undone: %w", err, failed)
	}
	if undone {
		n.changed.Store(false)
	}
	return err
}

// takeBack removes an unfinished directory of ours, and the record if there is
// none then. conflict says that a directory that is there is known not to be ours.
func (n *creation) takeBack(ctx context.Context, conflict bool) (bool, error) {
	sub := string(n.SubDir)
	dir, err := n.root.findDir(n.SubDir)
	if err != nil && !isBarred(err) {
		return false, err
	}
	defer dir.close()
	if err != nil {
		if stays, err := n.staysBarred(err); stays || err != nil {
			return false, err
		}
	}
	if dir != nil {
		unfinished, err := dir.isUnfinished()
		if err != nil {
			return false, err
		}
		if err := n.refresh(); err != nil {
			return false, err
		}
		marked, err := n.marked(sub, n.Owner)
		switch {
		case err != nil:
			return false, err
		case n.made || marked && unfinished:
			// In this order: a mark without a directory would speak for the next one.
			if err := n.unlink(ctx, markName(sub, n.Owner)); err != nil {
				return false, err
			}
			if err := n.rmdir(ctx, dir); err != nil {
				return false, err
			}
		case marked || !conflict:
			return false, nil
		}
	}
	if err := n.unlink(ctx, markName(sub, n.Owner)); err != nil {
		return false, err
	}
	if err := n.removeParents(ctx, sub); err != nil {
		return false, err
	}
	if err := n.dropRecord(ctx, sub, kindVolume, n.Owner); err != nil || !n.inParent {
		return true, err
	}
	// While our record was there, nobody else removed it.
	return true, n.removeParents(ctx, sub+"/x")
}

// staysBarred says whether a directory that was made for the volume, by this call or
// an earlier one, may be behind what err says is in the way.
func (n *creation) staysBarred(err error) (bool, error) {
	if n.made {
		return isDenied(err), nil
	}
	if err := n.refresh(); err != nil {
		return false, err
	}
	return n.marked(string(n.SubDir), n.Owner)
}
