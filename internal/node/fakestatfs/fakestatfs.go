// Package fakestatfs is the fake of statfs(2) for tests of logic: servers that answer,
// fail, or do not answer until they are back.
package fakestatfs

import (
	"sync"

	"sharevol.dev/sharevol/internal/node"
)

// Full is what every path answers that nothing else was set for.
var Full = node.Space{Bytes: 1000, BytesUsed: 900, BytesAvailable: 50, Inodes: 100, InodesUsed: 90, InodesAvailable: 10}

// Statfs is a stateful fake. The zero value answers Full for every path.
type Statfs struct {
	mu     sync.Mutex
	fails  map[string]error
	spaces map[string]node.Space
	dead   map[string]chan struct{}
	calls  []string
	blocks int
}

// Ask is the fake's statfs.
func (s *Statfs) Ask(path string) (node.Space, error) {
	s.mu.Lock()
	s.calls = append(s.calls, path)
	dead := s.dead[path]
	s.mu.Unlock()
	if dead != nil {
		s.block(1)
		<-dead
		s.block(-1)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fails[path]; err != nil {
		return node.Space{}, err
	}
	if space, set := s.spaces[path]; set {
		return space, nil
	}
	return Full, nil
}

func (s *Statfs) block(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blocks += n
}

// Fail has path fail with err; nil ends that.
func (s *Statfs) Fail(path string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails == nil {
		s.fails = map[string]error{}
	}
	s.fails[path] = err
}

// Set has path answer space.
func (s *Statfs) Set(path string, space node.Space) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spaces == nil {
		s.spaces = map[string]node.Space{}
	}
	s.spaces[path] = space
}

// Kill has calls for path block until Revive, as those to a dead server do.
func (s *Statfs) Kill(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead == nil {
		s.dead = map[string]chan struct{}{}
	}
	s.dead[path] = make(chan struct{})
}

// Revive has the server of path answer again, the calls that block too.
func (s *Statfs) Revive(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if dead := s.dead[path]; dead != nil {
		close(dead)
		delete(s.dead, path)
	}
}

// Calls returns the paths that were asked for so far.
func (s *Statfs) Calls() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.calls...)
}

// Blocked returns how many calls block.
func (s *Statfs) Blocked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.blocks
}
