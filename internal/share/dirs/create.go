package dirs

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/fault"
)

// Create makes a volume directory with the parents that it lacks. One that an
// earlier Create has made for the same owner is success and stays as it is, unless
// that Create did not get to its end: then it is finished.
//
// Whose a directory is, is decided by its record, which only one of all that want
// it can make, and by the mark that follows the mkdir. A directory without the mark
// is somebody's data, unless it is as empty and unfinished as a crash before the
// mark leaves it.
func (r *Root) Create(ctx context.Context, want Create) (Created, error) {
	if err := want.check(); err != nil {
		return Created{}, untouched(err)
	}
	c, err := r.begin(ctx, want.ShareID, true)
	if err != nil {
		return Created{}, err
	}
	defer c.end()
	n := &creation{call: c, Create: want}
	if err := n.create(ctx); err != nil {
		return Created{}, c.result(err)
	}
	return Created{ShareID: c.folder.id, Made: n.isOurs}, nil
}

// creation is a Create under way.
type creation struct {
	*call
	Create
	recorded bool // by this call
	made     bool // by this call
	isOurs   bool
	inParent bool // found a parent in its place
}

func (n *creation) create(ctx context.Context) error {
	shared, err := n.claim(ctx)
	if err != nil {
		return err
	}
	if shared != nil {
		return retry(func() error { return n.useShared(*shared) })
	}
	fault.Point("recorded")
	if err := retry(func() error { return n.make(ctx) }); err != nil {
		return n.undo(ctx, err)
	}
	return nil
}

// claim makes the record. If another volume has recorded the path and both are
// retained, it returns that one's record.
func (n *creation) claim(ctx context.Context) (shared *record, err error) {
	mine := newRecord(kindVolume, string(n.SubDir), n.Owner, n.Retain)
	for {
		there, err := n.put(ctx, mine)
		switch {
		case err != nil:
			return nil, err
		case there == nil:
			n.recorded = true
			return nil, nil
		case there.isOf(kindVolume, n.Owner) && (there.Retain == n.Retain || n.Retain):
			return nil, nil // of an earlier try
		case there.isOf(kindVolume, n.Owner):
			if err := n.unretain(ctx); err != nil {
				return nil, err
			}
		case there.Kind == kindVolume && there.Retain && n.Retain:
			return there, nil
		default:
			return nil, there.conflict(string(n.SubDir), n.Owner)
		}
	}
}

// unretain drops the record of an earlier try, made when the class still retained:
// others may share the directory by it. Without a directory nobody does.
func (n *creation) unretain(ctx context.Context) error {
	there, err := n.exists(string(n.SubDir))
	if err != nil {
		return err
	}
	if there {
		return conflictf("%s was made to be retained, and other volumes may use it", n.SubDir)
	}
	// In this order: the mark has the record's text, and would bring it back.
	if err := n.unlink(ctx, markName(string(n.SubDir), n.Owner)); err != nil {
		return err
	}
	return n.dropRecord(ctx, string(n.SubDir), kindVolume, n.Owner)
}

// useShared takes a directory that is another retained volume's too.
func (n *creation) useShared(r record) error {
	dir, err := n.root.findDir(n.SubDir)
	if err != nil {
		return err
	}
	defer dir.close()
	if dir != nil {
		unfinished, err := dir.isUnfinished()
		if err != nil || !unfinished || n.Mode == unfinishedMode {
			return err
		}
	} else if err := n.checkMissing(r); err != nil {
		return err
	}
	return fmt.Errorf("%s is being made for the volume %s: try again", n.SubDir, r.Volume)
}

// checkMissing says if the directory that is not there was made for the volume of r,
// so that nobody is about to make it.
func (n *creation) checkMissing(r record) error {
	if err := n.refresh(); err != nil {
		return err
	}
	made, err := n.marked(string(n.SubDir), r.owner())
	if err != nil || !made {
		return err
	}
	if there, err := n.exists(string(n.SubDir)); err != nil {
		return err
	} else if there {
		return errMoved
	}
	return conflictf("%s is missing, and was made for the volume %s: somebody removed it; make the directory again by hand, or delete that volume", n.SubDir, r.Volume)
}

// make makes the directory and finishes it.
func (n *creation) make(ctx context.Context) error {
	n.isOurs = false
	dir, err := n.mkdir(ctx)
	if err != nil {
		return err
	}
	defer dir.close()
	finish, err := n.inspect(ctx, dir)
	if err != nil {
		return err
	}
	if n.recorded && n.isOurs && !n.made { // an earlier try's record was lost
		if err := n.keepAlone(ctx, string(n.SubDir), n.Owner, false); err != nil {
			return err
		}
	}
	if finish {
		if err := n.mark(ctx, newRecord(kindVolume, string(n.SubDir), n.Owner, n.Retain)); err != nil {
			return err
		}
		n.isOurs = true
		if err := n.finish(ctx, dir); err != nil {
			return err
		}
	}
	return n.confirm(ctx, dir)
}

// mkdir makes the directory if it is not there, and opens it.
func (n *creation) mkdir(ctx context.Context) (*found, error) {
	n.root.parents.RLock()
	defer n.root.parents.RUnlock()
	at, err := n.makeParents(ctx, n.SubDir, n.Owner)
	if err != nil {
		return nil, err
	}
	err = n.change(ctx, func() error { return unix.Mkdirat(int(at.dir.Fd()), at.name, unfinishedMode) })
	n.made = err == nil
	if n.made {
		fault.Point("made")
	}
	var dir *found
	switch {
	case n.made, errors.Is(err, unix.EEXIST):
		open := openVolume
		if n.made {
			open = openFound
		}
		if dir, err = open(at); dir == nil && err == nil {
			err = errMoved
		}
	case errors.Is(err, unix.ENOENT): // the directory above was removed, being empty
		err = errMoved
	default:
		err = stepError("mkdir", at.shown, err)
	}
	if err != nil {
		at.close()
	}
	return dir, err
}

// inspect says whether the directory is ours and to be finished. If it is nobody's
// that this volume may use, it is a conflict.
func (n *creation) inspect(ctx context.Context, dir *found) (finish bool, err error) {
	if n.made && dir.stat.perm()&^unix.S_ISGID == unfinishedMode {
		return true, nil
	}
	if n.made {
		// The server makes its own modes, or something else was put in its place.
		empty, err := isEmpty(dir.file)
		if err == nil && !empty {
			err = conflictf("%s was replaced while it was made: left as it is", n.SubDir)
		}
		return empty, stepError("read", dir.shown, err)
	}
	// In this order: whoever else makes it for us gives it the mark before its mode.
	unfinished, err := dir.isUnfinished()
	if err != nil {
		return false, err
	}
	if err := n.refresh(); err != nil {
		return false, err
	}
	if n.isOurs, err = n.marked(string(n.SubDir), n.Owner); err != nil || n.isOurs {
		return unfinished, err
	}
	if unfinished && !dir.isRoot {
		// What we make has the owner that our records have.
		r, err := statAt(n.folder.owners, recordName(string(n.SubDir)), cached)
		if err != nil {
			return false, stepError("stat", recordPath(string(n.SubDir)), err)
		}
		if r.uid == dir.stat.uid {
			return true, n.checkMarks(string(n.SubDir), n.Owner)
		}
	}
	if err := n.checkNoParent(ctx); err != nil {
		return false, err
	}
	if n.Retain {
		return false, n.checkMarks(string(n.SubDir), n.Owner)
	}
	return false, conflictf("%s exists, and sharevol did not make it for this volume: left as it is", n.SubDir)
}

// checkNoParent says if the directory that is there was made for volumes below it. If
// a crash has left it, empty, it goes: by our record no volume is below it any more.
func (n *creation) checkNoParent(ctx context.Context) error {
	parent, err := n.parent(string(n.SubDir))
	if err != nil || parent == nil {
		return err
	}
	n.inParent = true
	gone, err := n.removeUnused(ctx, string(n.SubDir))
	if err != nil {
		return err
	}
	if !gone {
		return conflictf("%s has the directories of other volumes in it", n.SubDir)
	}
	return errMoved
}
