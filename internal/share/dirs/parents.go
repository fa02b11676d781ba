package dirs

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/volume"
)

// parentMode is that of the parents that a template makes: nodes pass through, and
// only the provisioner writes.
const parentMode = 0o755

// parentsOf returns the paths above sub: "a" and "a/b" for "a/b/c".
func parentsOf(sub string) []string {
	var parents []string
	for i := range len(sub) {
		if sub[i] == '/' {
			parents = append(parents, sub[:i])
		}
	}
	return parents
}

// makeParents returns the place of sub, and makes the directories above it that are
// missing. A volume, an archive or the root of another share above it is a conflict.
func (c *call) makeParents(ctx context.Context, sub volume.SubDir, owner Owner) (_ *place, err error) {
	at, rest := c.root.start(string(sub))
	defer func() {
		if err != nil {
			at.close()
		}
	}()
	var there []string
	for len(rest) > 0 {
		dir, err := c.root.openNext(at)
		if err != nil {
			return nil, err
		}
		if dir == nil {
			break
		}
		there = append(there, at.shown)
		at.enter(dir, rest[0])
		rest = rest[1:]
	}
	if len(rest) == 0 && len(there) > 0 {
		if err := c.root.look(at); err != nil {
			return nil, err
		}
	}
	// In this order: a volume is recorded before its directory is there to be found.
	if len(there) > 0 {
		if err := c.refresh(); err != nil {
			return nil, err
		}
	}
	for _, parent := range there {
		if err := c.checkParent(parent, owner); err != nil {
			return nil, err
		}
	}
	for ; len(rest) > 0; rest = rest[1:] {
		dir, err := c.makeParent(ctx, at, owner)
		if err != nil {
			return nil, err
		}
		at.enter(dir, rest[0])
	}
	return at, nil
}

// checkParent says if the path parent is a volume's or an archive's.
func (c *call) checkParent(parent string, owner Owner) error {
	r, err := c.record(parent)
	if err == nil && r != nil {
		err = r.conflict(parent, owner)
	}
	return err
}

// makeParent makes the parent at at, and opens it.
func (c *call) makeParent(ctx context.Context, at *place, owner Owner) (*os.File, error) {
	if err := c.putParent(ctx, at.shown, owner); err != nil {
		return nil, err
	}
	err := c.change(ctx, func() error { return unix.Mkdirat(int(at.dir.Fd()), at.name, parentMode) })
	made := err == nil
	switch {
	case errors.Is(err, unix.ENOENT): // what is above it was removed
		return nil, errMoved
	case err != nil && !errors.Is(err, unix.EEXIST):
		return nil, stepError("mkdir", at.shown, err)
	}
	// Whoever removes empty parents may have dropped the record before there was a
	// directory, and a directory that was not there before may be that of a volume,
	// which makes its record, then its directory, and looks for no other record.
	if err := c.putParent(ctx, at.shown, owner); err != nil {
		return nil, err
	}
	return c.openParent(ctx, at, made)
}

// putParent makes the record of a parent, and then looks for that of a volume or an
// archive in its place.
func (c *call) putParent(ctx context.Context, parent string, owner Owner) error {
	there, err := c.put(ctx, newRecord(kindParent, parent, Owner{}, false))
	if err != nil {
		return err
	}
	if there != nil && there.Kind != kindParent {
		return there.conflict(parent, owner)
	}
	if err := c.refresh(); err != nil {
		return err
	}
	return c.checkParent(parent, owner)
}

// openParent opens the parent at at. If it was just made, it gets the mode that the
// umask may have kept from it.
func (c *call) openParent(ctx context.Context, at *place, made bool) (*os.File, error) {
	dir, err := openAt(at.dir, at.name, pathFlags, at.shown)
	if isGone(err) {
		return nil, errMoved
	}
	if err != nil {
		return nil, openError(at.shown, err)
	}
	if !made {
		if err := checkShare(dir, at.shown); err != nil {
			_ = dir.Close()
			return nil, err
		}
		return dir, nil
	}
	st, err := statFile(dir, cached)
	if err == nil && st.perm()|parentMode != st.perm() {
		err = c.change(ctx, func() error { return chmodPath(dir, st.perm()|parentMode) })
	}
	if err != nil {
		_ = dir.Close()
		return nil, stepError("chmod", at.shown, err)
	}
	return dir, nil
}

// removeParents removes the directories above sub that sharevol made, from the
// bottom up, as long as they are empty, and their records. What it can't remove
// for good is left.
func (c *call) removeParents(ctx context.Context, sub string) error {
	parents := parentsOf(sub)
	if len(parents) == 0 {
		return nil
	}
	c.root.parents.Lock()
	defer c.root.parents.Unlock()
	for i := len(parents) - 1; i >= 0; i-- {
		gone, err := c.removeParent(ctx, parents[i])
		if !gone || err != nil {
			return err
		}
	}
	return nil
}

// removeParent removes the directory parent if sharevol made it as one and it is
// empty. It says whether it is gone with its record.
func (c *call) removeParent(ctx context.Context, parent string) (bool, error) {
	if err := c.refresh(); err != nil {
		return false, err
	}
	r, err := c.parent(parent)
	if err != nil || r != nil && r.Kind != kindParent {
		return false, err
	}
	if r == nil {
		// If it is gone, an earlier call was at this when it ended: go on above it.
		there, err := c.exists(parent)
		if isBarred(err) { // no directory of ours is below a link
			return false, nil
		}
		return !there && err == nil, err
	}
	// A volume may have come where the parent was, or was to be. One that only tries
	// to looks after the parent when it has failed.
	if volume, err := c.record(parent); err != nil || volume != nil {
		return false, err
	}
	return c.removeEmpty(ctx, parent)
}

// removeUnused removes a parent in the place of a volume that has its record, but
// not its directory. As nothing can be made below it now, it has been left there.
func (c *call) removeUnused(ctx context.Context, sub string) (bool, error) {
	c.root.parents.Lock()
	defer c.root.parents.Unlock()
	r, err := c.parent(sub)
	if err != nil || r == nil || r.Kind != kindParent {
		return r == nil, err
	}
	return c.removeEmpty(ctx, sub)
}

// removeEmpty removes the recorded parent if it is empty, and its record.
func (c *call) removeEmpty(ctx context.Context, parent string) (bool, error) {
	if removed, err := c.rmdirParent(ctx, parent); !removed || err != nil {
		return false, err
	}
	if err := c.unlink(ctx, parentName(parent)); err != nil {
		return false, err
	}
	// Another process may have made it again in between, under the record that is
	// gone now.
	if there, err := c.exists(parent); err != nil || !there {
		return err == nil, err
	}
	_, err := c.put(ctx, newRecord(kindParent, parent, Owner{}, false))
	return false, err
}

// rmdirParent removes the directory parent if it is empty, and says whether it is gone.
func (c *call) rmdirParent(ctx context.Context, parent string) (bool, error) {
	at, err := c.root.find(parent)
	if isBarred(err) {
		return false, nil
	}
	if at == nil || err != nil {
		return err == nil, err
	}
	defer at.close()
	err = c.change(ctx, func() error { return unix.Unlinkat(int(at.dir.Fd()), at.name, unix.AT_REMOVEDIR) })
	switch {
	case err == nil, errors.Is(err, unix.ENOENT), isNoDirectory(err):
		return true, nil
	case isDefinite(err): // not empty, or not ours to decide
		return false, nil
	}
	return false, stepError("rmdir", parent, err)
}

// exists says whether there is anything at the path sub.
func (c *call) exists(sub string) (bool, error) {
	at, err := c.root.find(sub)
	if at == nil || err != nil {
		return false, err
	}
	defer at.close()
	_, err = statAt(at.dir, at.name, fresh)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, stepError("stat", sub, err)
}
