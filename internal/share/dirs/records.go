package dirs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"sync"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/volume"
)

// Records returns what the share says about the volumes of a cluster: their records,
// and those that are lost, by the marks. A share that sharevol never used has none.
// Of many it tells that it progresses; see WithProgress.
func (r *Root) Records(ctx context.Context, cluster string) ([]Record, error) {
	c, err := r.begin(ctx, "", false)
	if errors.Is(err, errNoFolder) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer c.end()
	found, err := c.records(ctx, func(r record) bool { return r.Kind == kindVolume && r.Cluster == cluster })
	if err != nil {
		return nil, c.result(err)
	}
	var records []Record
	for _, r := range found {
		records = append(records, Record{SubDir: volume.SubDir(r.SubDir), Owner: r.owner(), ShareID: c.folder.id, Retain: r.Retain})
	}
	return records, nil
}

// records returns the records, and the lost ones, that keep takes. It is called by
// several goroutines at once.
func (c *call) records(ctx context.Context, keep func(record) bool) ([]record, error) {
	var (
		found    []record
		recorded = map[[sha256.Size]byte]bool{} // by the path's sum, to be small
		marks    []string
	)
	isRecorded := func(name string) bool {
		sum, _ := hex.DecodeString(name[:recordNameLength])
		return recorded[[sha256.Size]byte(sum)]
	}
	read := func(names []string) error {
		some, err := c.readRecords(ctx, names, keep)
		found = append(found, some...)
		return err
	}
	err := c.eachNames(func(names []string) error {
		var records []string
		for _, name := range names {
			switch {
			case isMarkName(name):
				if !isRecorded(name) {
					marks = append(marks, name)
				}
			case isRecordName(name):
				sum, _ := hex.DecodeString(name)
				recorded[[sha256.Size]byte(sum)] = true
				records = append(records, name)
			}
		}
		return read(records)
	})
	if err != nil {
		return nil, err
	}
	var lost []string
	for _, name := range marks {
		if !isRecorded(name) {
			lost = append(lost, name)
		}
	}
	err = read(lost)
	return found, err
}

// eachNames calls do with the names in owners, some at a time.
func (c *call) eachNames(do func(names []string) error) error {
	if err := c.refresh(); err != nil {
		return err
	}
	dir, err := openAt(c.folder.owners, ".", openDirFlags, folderName+"/"+ownersName)
	if err != nil {
		return stepError("open", folderName+"/"+ownersName, err)
	}
	defer func() { _ = dir.Close() }()
	for {
		names, err := dir.Readdirnames(1000)
		if len(names) > 0 {
			if err := do(names); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// readers is how many records a call reads at a time. A server far away answers none
// faster, but many at once.
const readers = 16

// readRecords reads the records and marks with the given names, several at a time.
func (c *call) readRecords(ctx context.Context, names []string, keep func(record) bool) ([]record, error) {
	var (
		mu    sync.Mutex
		found []record
		errs  []error
		group sync.WaitGroup
	)
	next, progress := make(chan string), Progress(ctx)
	for range min(readers, len(names)) {
		group.Go(func() {
			for name := range next {
				text, err := readlinkAt(c.folder.owners, name)
				progress()
				r := parseEither(name, text)
				mu.Lock()
				if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
					errs = append(errs, stepError("readlink", name, err))
				} else if keep(r) {
					found = append(found, r)
				}
				mu.Unlock()
			}
		})
	}
	for _, name := range names {
		if ctx.Err() == nil {
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
