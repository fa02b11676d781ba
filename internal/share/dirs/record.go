package dirs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/volume"
)

// maxLink is the longest text of a symbolic link on Linux, in bytes. File systems
// may allow less: XFS 1023, which a subDir of some 850 bytes fits.
const maxLink = 4095

// kind is what a recorded directory is. The zero kind is a record that this
// version can't read, of which nothing is known but that it is not ours.
type kind string

const (
	kindVolume  kind = "volume"
	kindParent  kind = "parent" // made for volumes below it, and goes when it is empty
	kindArchive kind = "archive"
)

// recordVersion is that of the form below.
const recordVersion = 1

// record is the text of a link in owners. A parent has no owner: it serves all.
type record struct {
	Version int    `json:"v"`
	Cluster string `json:"cluster,omitempty"`
	Volume  string `json:"volume,omitempty"`
	SubDir  string `json:"subDir"`
	Kind    kind   `json:"kind"`
	Retain  bool   `json:"retain,omitempty"`
}

func newRecord(kind kind, sub string, owner Owner, retain bool) record {
	return record{Version: recordVersion, Cluster: owner.Cluster, Volume: owner.Volume, SubDir: sub, Kind: kind, Retain: retain}
}

// name returns the name of r in owners. A parent has a name of its own, as anyone
// may drop it: whoever is late must not drop a volume's record in its place.
func (r record) name() string {
	if r.Kind == kindParent {
		return parentName(r.SubDir)
	}
	return recordName(r.SubDir)
}

func (r record) owner() Owner { return Owner{Cluster: r.Cluster, Volume: r.Volume} }

func (r record) isOf(kind kind, owner Owner) bool { return r.Kind == kind && r.owner() == owner }

// text returns r as one line.
func (r record) text() (string, error) {
	var line bytes.Buffer
	encoder := json.NewEncoder(&line)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(r); err != nil {
		return "", err
	}
	text := string(bytes.TrimSpace(line.Bytes()))
	if len(text) > maxLink {
		return "", fmt.Errorf("the record of %s is longer than %d bytes", r.SubDir, maxLink)
	}
	return text, nil
}

// parseRecord reads the record that has the given name in owners.
func parseRecord(name, text string) record {
	decoder := json.NewDecoder(bytes.NewReader([]byte(text)))
	decoder.DisallowUnknownFields()
	var r record
	err := decoder.Decode(&r)
	known := r.Kind == kindParent && r.owner() == Owner{} || (r.Kind == kindVolume || r.Kind == kindArchive) && r.owner().check() == nil
	if err != nil || decoder.More() || r.Version != recordVersion || !known || r.name() != name {
		return record{}
	}
	return r
}

// recordName returns the name of the record of the path sub in owners.
func recordName(sub string) string {
	sum := sha256.Sum256([]byte(sub))
	return hex.EncodeToString(sum[:])
}

func parentName(sub string) string { return recordName(sub) + ".parent" }

// markName returns the name of the mark that sharevol made the directory sub for owner.
func markName(sub string, owner Owner) string {
	sum := sha256.Sum256([]byte(owner.Cluster + "\x00" + owner.Volume))
	return recordName(sub) + "." + hex.EncodeToString(sum[:16])
}

func recordPath(sub string) string { return folderName + "/" + ownersName + "/" + recordName(sub) }

// refresh makes the client forget which records it believes to be missing, or
// there, if another one has changed any since.
func (c *call) refresh() error {
	if _, err := statFile(c.folder.owners, fresh); err != nil {
		return stepError("stat", folderName+"/"+ownersName, err)
	}
	return nil
}

// record returns the record of the volume or archive at the path sub, nil if there
// is none.
func (c *call) record(sub string) (*record, error) { return c.read(recordName(sub)) }

// parent returns the record of the parent at the path sub, nil if there is none.
func (c *call) parent(sub string) (*record, error) { return c.read(parentName(sub)) }

func (c *call) read(name string) (*record, error) {
	text, err := readlinkAt(c.folder.owners, name)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, nil
	case errors.Is(err, unix.EINVAL): // no link
		return &record{}, nil
	case err != nil:
		return nil, stepError("readlink", folderName+"/"+ownersName+"/"+name, err)
	}
	r := parseRecord(name, text)
	return &r, nil
}

// put makes the record r if there is none for its path. Otherwise it returns the
// one that is there, which may be equal.
func (c *call) put(ctx context.Context, r record) (there *record, err error) {
	text, err := r.text()
	if err != nil {
		return nil, err
	}
	err = retry(func() error {
		there = nil
		err := c.symlink(ctx, text, r.name())
		if !errors.Is(err, unix.EEXIST) {
			return err
		}
		if there, err = c.read(r.name()); err == nil && there == nil {
			err = errMoved
		}
		return err
	})
	if errors.Is(err, unix.ENAMETOOLONG) {
		return nil, fmt.Errorf("%w: the file system of the share has no links of %d bytes", stepError("symlink", recordPath(r.SubDir), unix.ENAMETOOLONG), len(text))
	}
	return there, stepError("symlink", recordPath(r.SubDir), err)
}

func (c *call) symlink(ctx context.Context, text, name string) error {
	return c.change(ctx, func() error { return unix.Symlinkat(text, int(c.folder.owners.Fd()), name) })
}

// unlink removes a link in owners; a missing one is success.
func (c *call) unlink(ctx context.Context, name string) error {
	err := c.change(ctx, func() error { return unix.Unlinkat(int(c.folder.owners.Fd()), name, 0) })
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return stepError("unlink", folderName+"/"+ownersName+"/"+name, err)
}

// dropRecord removes the record of the path sub if it is what is said. Whoever
// does the same at the same time may have made room for another's: it is read anew.
func (c *call) dropRecord(ctx context.Context, sub string, kind kind, owner Owner) error {
	if err := c.refresh(); err != nil {
		return err
	}
	r, err := c.record(sub)
	if err != nil || r == nil || !r.isOf(kind, owner) {
		return err
	}
	return c.unlink(ctx, recordName(sub))
}

// mark records that sharevol made the directory sub for owner. Only such a one is
// ever finished, moved or removed.
func (c *call) mark(ctx context.Context, sub string, owner Owner) error {
	err := c.symlink(ctx, "made", markName(sub, owner))
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return stepError("symlink", recordPath(sub), err)
}

func (c *call) marked(sub string, owner Owner) (bool, error) {
	_, err := statAt(c.folder.owners, markName(sub, owner), cached)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, stepError("stat", recordPath(sub), err)
}

// conflict says to whom a path belongs by its record.
func (r record) conflict(sub string, me Owner) error {
	cluster := ""
	if r.Cluster != me.Cluster {
		cluster = " of another cluster"
	}
	switch r.Kind {
	case kindVolume:
		return conflictf("%s belongs to the volume %s%s", sub, r.Volume, cluster)
	case kindArchive:
		return conflictf("%s is the archive of the volume %s%s", sub, r.Volume, cluster)
	}
	return conflictf("%s: its record %s can't be read, so it is somebody else's", sub, recordPath(sub))
}

// Records returns what the share says about the volumes of a cluster. A share that
// sharevol never used has none.
func (r *Root) Records(ctx context.Context, cluster string) ([]Record, error) {
	c, err := r.begin(ctx, "", false)
	if errors.Is(err, errNoFolder) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer c.end()
	records, err := c.records(ctx, func(r record) bool { return r.Cluster == cluster })
	return records, c.result(err)
}

// records returns the records of volumes that are wanted.
func (c *call) records(ctx context.Context, wanted func(record) bool) ([]Record, error) {
	dir, err := openAt(c.folder.owners, ".", openDirFlags, folderName+"/"+ownersName)
	if err != nil {
		return nil, stepError("open", folderName+"/"+ownersName, err)
	}
	defer func() { _ = dir.Close() }()
	var found []Record
	for {
		names, err := dir.Readdirnames(1000)
		if len(names) > 0 {
			some, err := c.readRecords(ctx, wanted, names)
			if err != nil {
				return nil, err
			}
			found = append(found, some...)
		}
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// readRecords reads the records with the given names, several at a time.
func (c *call) readRecords(ctx context.Context, wanted func(record) bool, names []string) ([]Record, error) {
	var (
		mu    sync.Mutex
		found []Record
		errs  []error
		group sync.WaitGroup
	)
	next := make(chan string)
	for range c.root.options.Workers {
		group.Go(func() {
			for name := range next {
				text, err := readlinkAt(c.folder.owners, name)
				r := parseRecord(name, text)
				mu.Lock()
				if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
					errs = append(errs, stepError("readlink", name, err))
				} else if r.Kind == kindVolume && wanted(r) {
					found = append(found, Record{SubDir: volume.SubDir(r.SubDir), Owner: r.owner(), ShareID: c.folder.id, Retain: r.Retain})
				}
				mu.Unlock()
			}
		})
	}
	for _, name := range names {
		if len(name) == len(recordName("")) && ctx.Err() == nil {
			next <- name
		}
	}
	close(next)
	group.Wait()
	if len(errs) > 0 {
		return nil, errs[0]
	}
	return found, ctx.Err()
}
