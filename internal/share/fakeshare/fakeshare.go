// Package fakeshare is the fake of share.Manager for tests of logic: it keeps
// its directories in memory, with whose they are.
package fakeshare

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"sharevol.dev/sharevol/internal/share"
	"sharevol.dev/sharevol/internal/share/dirs"
	"sharevol.dev/sharevol/internal/volume"
)

// Shares is a stateful fake. The zero value is an empty set of shares that work;
// set its fields before the first call, or between two.
type Shares struct {
	// Err is what every call returns. With share.ErrUntouched it does nothing,
	// with another error its work all the same.
	Err error
	// Block, when not nil, makes every call wait until it is closed.
	Block chan struct{}
	// Only, when not nil, is the only share that is served.
	Only *volume.Share

	waiting atomic.Int32

	mu      sync.Mutex
	ids     map[volume.Share]string
	dirs    map[volume.Directory]*directory
	records map[volume.Directory]dirs.Record
}

// directory is one that is there.
type directory struct {
	ref  share.Ref
	made bool // by Create
	data bool // it is not empty
}

// Fail sets Err, also between two calls of others.
func (s *Shares) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Err = err
}

// Waiting returns how many calls wait for Block.
func (s *Shares) Waiting() int { return int(s.waiting.Load()) }

// Dirs returns the directories that are there, as mount(8) would name them.
func (s *Shares) Dirs() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sources []string
	for at := range s.dirs {
		sources = append(sources, at.DisplayPath())
	}
	slices.Sort(sources)
	return sources
}

// Ref returns how the share of a directory was mounted when it was made.
func (s *Shares) Ref(source string) share.Ref {
	s.mu.Lock()
	defer s.mu.Unlock()
	for at, dir := range s.dirs {
		if at.DisplayPath() == source {
			return dir.ref
		}
	}
	return share.Ref{}
}

// SetID puts another file system's id on a share; an empty one takes it away.
func (s *Shares) SetID(of volume.Share, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.init()
	s.ids[of] = id
}

// Put writes a file into a directory, and makes that if it is not there, as
// somebody would who mounts the share.
func (s *Shares) Put(of volume.Share, dir volume.SubDir) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.init()
	at := volume.Directory{Share: of, SubDir: dir}
	if s.dirs[at] == nil {
		s.dirs[at] = &directory{}
	}
	s.dirs[at].data = true
}

// Serves reports whether share is the only one, or all are served.
func (s *Shares) Serves(share volume.Share) bool { return s.Only == nil || *s.Only == share }

// Create makes a directory and its record.
func (s *Shares) Create(_ context.Context, ref share.Ref, create dirs.Create) (created dirs.Created, err error) {
	err = s.call(ref, func() error {
		at := volume.Directory{Share: ref.Share, SubDir: create.SubDir}
		id := s.ids[ref.Share]
		if create.ShareID != "" && create.ShareID != id {
			return otherShare(id)
		}
		if err := s.claim(at, create); err != nil {
			return err
		}
		if id == "" {
			id = "id-of-" + ref.Share.String()
			s.ids[ref.Share] = id
		}
		if _, taken := s.records[at]; !taken {
			s.records[at] = dirs.Record{SubDir: create.SubDir, Owner: create.Owner, ShareID: id, Retain: create.Retain}
		}
		if s.dirs[at] == nil {
			s.dirs[at] = &directory{ref: ref, made: true}
		}
		created = dirs.Created{ShareID: id, Made: s.dirs[at].made && s.records[at].Owner == create.Owner}
		return nil
	})
	return created, err
}

// claim returns why create can't have the directory at, if there is a reason.
func (s *Shares) claim(at volume.Directory, create dirs.Create) error {
	for other, record := range s.records {
		there, here := string(other.SubDir), string(at.SubDir)
		switch {
		case other.Share != at.Share:
		case there == here && record.Owner != create.Owner && !(record.Retain && create.Retain),
			strings.HasPrefix(here, there+"/"), strings.HasPrefix(there, here+"/"):
			return conflict("%s belongs to the volume %s", there, record.Owner.Volume)
		}
	}
	if dir := s.dirs[at]; dir != nil && !dir.made && !create.Retain {
		return conflict("%s exists, and sharevol did not make it for this volume: left as it is", at.SubDir)
	}
	return nil
}

// Delete removes a directory and its record.
func (s *Shares) Delete(_ context.Context, ref share.Ref, target dirs.Target) error {
	return s.call(ref, func() error {
		at, err := s.own(ref, target)
		if err != nil {
			return err
		}
		delete(s.dirs, at)
		delete(s.records, at)
		return nil
	})
}

// Archive moves a directory to archived-<volume>/<subDir> and removes its record.
func (s *Shares) Archive(_ context.Context, ref share.Ref, target dirs.Target) (name string, err error) {
	err = s.call(ref, func() error {
		at, err := s.own(ref, target)
		if err != nil {
			return err
		}
		to := volume.Directory{Share: at.Share, SubDir: volume.SubDir("archived-" + target.Owner.Volume + "/" + string(target.SubDir))}
		if dir := s.dirs[at]; dir != nil {
			if s.dirs[to] != nil {
				return conflict("%s exists: nothing was moved there", to.SubDir)
			}
			s.dirs[to] = &directory{ref: dir.ref, data: dir.data}
			delete(s.dirs, at)
		}
		delete(s.records, at)
		if s.dirs[to] != nil {
			name = string(to.SubDir)
		}
		return nil
	})
	return name, err
}

// Release removes the record of a directory.
func (s *Shares) Release(_ context.Context, ref share.Ref, target dirs.Target) error {
	return s.call(ref, func() error { return s.drop(ref, target, false) })
}

// Drop removes the record of a directory, and the directory if Create made it, it is
// not retained, and nobody has Put anything there.
func (s *Shares) Drop(_ context.Context, ref share.Ref, target dirs.Target) error {
	return s.call(ref, func() error { return s.drop(ref, target, true) })
}

func (s *Shares) drop(ref share.Ref, target dirs.Target, emptyToo bool) error {
	if err := s.checkID(ref, target); err != nil {
		return err
	}
	at := volume.Directory{Share: ref.Share, SubDir: target.SubDir}
	record := s.records[at]
	if record.Owner != target.Owner {
		return nil
	}
	delete(s.records, at)
	dir := s.dirs[at]
	switch {
	case dir == nil:
	case emptyToo && dir.made && !dir.data && !record.Retain:
		delete(s.dirs, at)
	default:
		dir.made = false // somebody's data from now on
	}
	return nil
}

// Records returns the records of a cluster, in the order of their directories.
func (s *Shares) Records(_ context.Context, ref share.Ref, cluster string) (records []dirs.Record, err error) {
	err = s.call(ref, func() error {
		for at, record := range s.records {
			if at.Share == ref.Share && record.Owner.Cluster == cluster {
				records = append(records, record)
			}
		}
		slices.SortFunc(records, func(a, b dirs.Record) int { return cmp.Compare(a.SubDir, b.SubDir) })
		return nil
	})
	return records, err
}

// own returns where target is, if it may be taken away.
func (s *Shares) own(ref share.Ref, target dirs.Target) (volume.Directory, error) {
	at := volume.Directory{Share: ref.Share, SubDir: target.SubDir}
	if err := s.checkID(ref, target); err != nil {
		return at, err
	}
	record, recorded := s.records[at]
	dir := s.dirs[at]
	if target.Foreign {
		return at, s.takeOver(at, target)
	}
	switch {
	case recorded && record.Owner != target.Owner:
		return at, fmt.Errorf("%w: %w", dirs.ErrTaken, conflict("%s belongs to the volume %s", at.SubDir, record.Owner.Volume))
	case recorded && record.Retain:
		return at, conflict("%s was made to be retained, and other volumes may use it: left as it is", at.SubDir)
	case dir != nil && (!recorded || !dir.made):
		return at, conflict("%s has no record that sharevol made it for this volume: left as it is", at.SubDir)
	}
	return at, nil
}

func (s *Shares) checkID(ref share.Ref, target dirs.Target) error {
	id := s.ids[ref.Share]
	switch {
	case target.ShareID == "" && target.Foreign:
	case target.ShareID == "":
		return fmt.Errorf("%w: the id of the share of %q is not known", dirs.ErrUntouched, target.SubDir)
	case target.ShareID != id:
		return otherShare(id)
	}
	return nil
}

func otherShare(id string) error {
	return fmt.Errorf("%w: %w: it has the id %q", dirs.ErrUntouched, dirs.ErrOtherShare, id)
}

func conflict(format string, args ...any) error {
	return fmt.Errorf("%w: %w: %s", dirs.ErrUntouched, dirs.ErrConflict, fmt.Sprintf(format, args...))
}

// call does work as Block and Err say.
func (s *Shares) call(ref share.Ref, work func() error) error {
	if s.Block != nil {
		s.waiting.Add(1)
		<-s.Block
		s.waiting.Add(-1)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.init()
	if errors.Is(s.Err, share.ErrUntouched) {
		return s.Err
	}
	if !s.Serves(ref.Share) {
		return fmt.Errorf("%w: %s is not one of the shares that are mounted for the provisioner", dirs.ErrUntouched, ref.Share)
	}
	if err := work(); err != nil {
		return err
	}
	return s.Err
}

func (s *Shares) init() {
	if s.dirs == nil {
		s.ids, s.dirs, s.records = map[volume.Share]string{}, map[volume.Directory]*directory{}, map[volume.Directory]dirs.Record{}
	}
}
