// Package fakeshare is the fake of share.Manager for tests of logic: it keeps
// its directories in memory.
package fakeshare

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"sharevol.dev/sharevol/internal/share"
	"sharevol.dev/sharevol/internal/volume"
)

// Shares is a stateful fake. The zero value is an empty set of shares that work;
// set its fields before the first call.
type Shares struct {
	// Err is what every call returns. With share.ErrUntouched it does nothing,
	// with another error its work all the same.
	Err error
	// Block, when not nil, makes every call wait until it is closed.
	Block chan struct{}

	waiting atomic.Int32

	mu   sync.Mutex
	dirs map[string]share.Ref
}

// Waiting returns how many calls wait for Block.
func (s *Shares) Waiting() int { return int(s.waiting.Load()) }

// Dirs returns the volume directories that are there, as mount(8) would name them.
func (s *Shares) Dirs() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.dirs))
}

// Ref returns how the share of a directory was mounted when it was made.
func (s *Shares) Ref(dir string) share.Ref {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dirs[dir]
}

// Create makes a directory.
func (s *Shares) Create(_ context.Context, ref share.Ref, dir volume.SubDir, _ uint32) error {
	s.wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(s.Err, share.ErrUntouched) {
		return s.Err
	}
	if s.dirs == nil {
		s.dirs = map[string]share.Ref{}
	}
	s.dirs[ref.Share.Source(dir)] = ref
	return s.Err
}

// Remove removes a directory.
func (s *Shares) Remove(_ context.Context, ref share.Ref, dir volume.SubDir) error {
	s.wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(s.Err, share.ErrUntouched) {
		return s.Err
	}
	delete(s.dirs, ref.Share.Source(dir))
	return s.Err
}

func (s *Shares) wait() {
	if s.Block != nil {
		s.waiting.Add(1)
		<-s.Block
		s.waiting.Add(-1)
	}
}
