package dirs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// A mark says that sharevol made a directory for a volume, and its text is the
// record. A record may be lost: the unlink of one that timed out, of an earlier
// volume at the same path, may take effect when the next volume has come. No call
// for another volume ever touches a mark, as the owner is in its name. When a volume
// goes, its mark goes before its record: a mark alone is that of a lost record.

// leftSuffix ends the name of a mark whose directory has left its place. It does not
// speak for what comes there then, but for what there is still to do.
const leftSuffix = ".left"

const recordNameLength = 2 * sha256.Size

var (
	recordForm = regexp.MustCompile(`^[0-9a-f]{64}$`)
	markForm   = regexp.MustCompile(`^[0-9a-f]{64}\.[0-9a-f]{32}(\.left)?$`)
)

func isRecordName(name string) bool { return recordForm.MatchString(name) }
func isMarkName(name string) bool   { return markForm.MatchString(name) }

// markName returns the name of the mark that sharevol made the directory sub for owner.
func markName(sub string, owner Owner) string {
	sum := sha256.Sum256([]byte(owner.Cluster + "\x00" + owner.Volume))
	return recordName(sub) + "." + hex.EncodeToString(sum[:16])
}

func leftName(sub string, owner Owner) string { return markName(sub, owner) + leftSuffix }

// parseEither reads the record or mark that has the given name in owners.
func parseEither(name, text string) record {
	if !isMarkName(name) {
		return parseRecord(name, text)
	}
	r := parseRecord(name[:recordNameLength], text)
	if r.Kind != kindVolume || markName(r.SubDir, r.owner()) != strings.TrimSuffix(name, leftSuffix) {
		return record{}
	}
	return r
}

// mark records that sharevol made the directory of the record r for its owner. Only
// such a one is ever finished, moved or removed.
func (c *call) mark(ctx context.Context, r record) error {
	text, err := r.text()
	if err != nil {
		return err
	}
	err = c.symlink(ctx, text, markName(r.SubDir, r.owner()))
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return stepError("symlink", recordPath(r.SubDir), err)
}

func (c *call) marked(sub string, owner Owner) (bool, error) {
	return c.hasMark(sub, markName(sub, owner))
}

// hasLeft says whether the directory of a volume has left its place.
func (c *call) hasLeft(sub string, owner Owner) (bool, error) {
	return c.hasMark(sub, leftName(sub, owner))
}

func (c *call) hasMark(sub, name string) (bool, error) {
	_, err := statAt(c.folder.owners, name, cached)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, stepError("stat", recordPath(sub), err)
}

// retire says by the mark that the directory of a volume has left its place. Without
// a mark there is nothing to say.
func (c *call) retire(ctx context.Context, sub string, owner Owner) error {
	err := c.change(ctx, func() error {
		owners := int(c.folder.owners.Fd())
		return unix.Renameat(owners, markName(sub, owner), owners, leftName(sub, owner))
	})
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return stepError("rename", recordPath(sub), err)
}

func (c *call) dropMarks(ctx context.Context, sub string, owner Owner) error {
	if err := c.unlink(ctx, markName(sub, owner)); err != nil {
		return err
	}
	return c.unlink(ctx, leftName(sub, owner))
}

// lost returns the record of a volume by its mark, nil if there is none, and whether
// its directory has left its place. It is asked after the record was not found.
func (c *call) lost(sub string, owner Owner) (r *record, left bool, err error) {
	// Whoever ends the volume meanwhile takes the mark away first.
	if err := c.refresh(); err != nil {
		return nil, false, err
	}
	for _, name := range []string{markName(sub, owner), leftName(sub, owner)} {
		text, err := readlinkAt(c.folder.owners, name)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil && !errors.Is(err, unix.EINVAL) { // no link
			return nil, false, stepError("readlink", folderName+"/"+ownersName+"/"+name, err)
		}
		r := parseEither(name, text)
		if r.Kind != kindVolume { // an earlier version's, without a text
			r = newRecord(kindVolume, sub, owner, false)
		}
		return &r, strings.HasSuffix(name, leftSuffix), nil
	}
	return nil, false, nil
}

// restore puts the lost record of a volume back. It returns the record that is there
// then, nil if there was nothing to put back.
func (c *call) restore(ctx context.Context, sub string, owner Owner) (*record, error) {
	lost, _, err := c.lost(sub, owner)
	if lost == nil || err != nil {
		return nil, err
	}
	there, err := c.put(ctx, *lost)
	if there == nil {
		there = lost
	}
	return there, err
}

// restoreToRemove is restore for a call that will take all that is below sub away. A
// volume that was made there while the record was lost is a conflict.
func (c *call) restoreToRemove(ctx context.Context, sub string, owner Owner) (*record, error) {
	lost, left, err := c.lost(sub, owner)
	if lost == nil || err != nil {
		return nil, err
	}
	if left {
		return c.restore(ctx, sub, owner)
	}
	// Before, as a crash after it would let the next call believe that all is well; and
	// after, as whoever has not seen the record by then has one of its own.
	if err := c.checkBelow(ctx, sub); err != nil {
		return nil, err
	}
	changed := c.changed.Load()
	r, err := c.restore(ctx, sub, owner)
	if r == nil || err != nil || !r.isOf(kindVolume, owner) {
		return r, err
	}
	return r, c.keepAlone(ctx, sub, owner, changed)
}

// keepAlone takes the record of a volume, which was lost, away again if another volume
// was made below it meanwhile. changed says if the share was changed before it was put.
func (c *call) keepAlone(ctx context.Context, sub string, owner Owner, changed bool) error {
	err := c.checkBelow(ctx, sub)
	if err == nil {
		return nil
	}
	if failed := c.dropRecord(ctx, sub, kindVolume, owner); failed != nil {
		return failed
	}
	c.changed.Store(changed)
	return err
}

// checkBelow says if there are volumes below the path sub.
func (c *call) checkBelow(ctx context.Context, sub string) error {
	below, err := c.records(ctx, func(r record) bool {
		return r.Kind == kindVolume && strings.HasPrefix(r.SubDir, sub+"/")
	})
	if err != nil || len(below) == 0 {
		return err
	}
	return conflictf("%s has the directory of the volume %s in it: left as it is", sub, below[0].Volume)
}

// checkMarks says if the directory sub was made for another volume, whose record is
// lost. It reads all names in owners.
func (c *call) checkMarks(sub string, me Owner) error {
	return c.eachNames(func(names []string) error {
		for _, name := range names {
			if !isMarkName(name) || strings.HasSuffix(name, leftSuffix) ||
				!strings.HasPrefix(name, recordName(sub)+".") || name == markName(sub, me) {
				continue
			}
			text, err := readlinkAt(c.folder.owners, name)
			switch {
			case errors.Is(err, unix.ENOENT):
				continue
			case err != nil && !errors.Is(err, unix.EINVAL):
				return stepError("readlink", folderName+"/"+ownersName+"/"+name, err)
			}
			if r := parseEither(name, text); r.Kind == kindVolume {
				return r.conflict(sub, me)
			}
			return conflictf("%s belongs to another volume, by the mark %s", sub, folderName+"/"+ownersName+"/"+name)
		}
		return nil
	})
}
