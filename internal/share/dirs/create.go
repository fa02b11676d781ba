package dirs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/fault"
)

// unfinishedMode is what a volume directory is made with, before it gets its own
// mode in the last step. Nobody would choose it, so that an empty directory that
// has it after a crash is known to be unfinished.
const unfinishedMode = 0o500

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
		return n.useShared(*shared)
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
	}
	return fmt.Errorf("%s is being made for the volume %s: try again", n.SubDir, r.Volume)
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
	if finish {
		if err := n.mark(ctx, string(n.SubDir), n.Owner); err != nil {
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
		if dir, err = openFound(at); dir == nil && err == nil {
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
			return true, nil
		}
	}
	if err := n.checkNoParent(ctx); err != nil || n.Retain {
		return false, err
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

// isUnfinished says whether the directory is as mkdir left it.
func (f *found) isUnfinished() (bool, error) {
	if f.stat.perm()&^unix.S_ISGID != unfinishedMode {
		return false, nil
	}
	empty, err := isEmpty(f.file)
	return empty, stepError("read", f.shown, err)
}

// finish gives the directory its owner, and then its mode.
func (n *creation) finish(ctx context.Context, dir *found) error {
	file, err := openAt(dir.file, ".", openDirFlags, dir.shown)
	if err != nil {
		return stepError("open", dir.shown, err)
	}
	defer func() { _ = file.Close() }()
	if other := func(want int64, is uint32) bool { return want >= 0 && want != int64(is) }; other(n.UID, dir.stat.uid) || other(n.GID, dir.stat.gid) {
		err := n.change(ctx, func() error { return unix.Fchown(int(file.Fd()), int(n.UID), int(n.GID)) })
		if err != nil {
			return fmt.Errorf("make %s the owner: %w", n.ownership(), stepError("chown", dir.shown, err))
		}
	}
	mode := n.Mode
	if mode == 0 {
		mode = 0o777&^umask() | dir.stat.perm()&unix.S_ISGID
	}
	if err := n.change(ctx, func() error { return unix.Fchmod(int(file.Fd()), mode) }); err != nil {
		return stepError("chmod", dir.shown, err)
	}
	fault.Point("finished")
	return nil
}

// ownership is what was wanted as chown(1) takes it.
func (n *creation) ownership() string {
	part := func(id int64) string {
		if id < 0 {
			return ""
		}
		return strconv.FormatInt(id, 10)
	}
	return part(n.UID) + ":" + part(n.GID)
}

// umask returns the umask of this process without changing it for a moment.
func umask() uint32 {
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "Umask:"); ok {
			if mask, err := strconv.ParseUint(strings.TrimSpace(value), 8, 32); err == nil {
				return uint32(mask)
			}
		}
	}
	return 0o022 // before Linux 4.7
}
