package share

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// helperPool bounds the helpers of all shares together: each has some 4 MB of its own, and
// the container of the program has a limit. A helper that was told to end, or was
// killed, has no place any more, so that one which does not die costs the other
// servers nothing.
type helperPool struct {
	limit int

	mu       sync.Mutex
	starting map[*shareConn]bool     // whose helper is being started; true: to recover the share
	running  map[*shareConn]struct{} // those that may have one
}

const (
	// rest is for how long a helper has had nothing to do that is ended for another
	// share's. It keeps those of shares that take turns from being started for each
	// operation.
	rest = 500 * time.Millisecond
	// poolTimeout is how long an operation waits for a place. In its second half it
	// takes that of any helper that has nothing to do.
	poolTimeout = time.Second
	// poolPoll is how often it looks for one.
	poolPoll = 20 * time.Millisecond
)

func newHelperPool(limit int) *helperPool {
	return &helperPool{limit: limit, starting: map[*shareConn]bool{}, running: map[*shareConn]struct{}{}}
}

// acquire gives s a place until release, and then for as long as it has a helper. If there
// is none left, it ends the helper that has had nothing to do for longest, if that is
// more than rested. No more than half of the places are for starts that recover a share: those of dead servers must not keep the others out.
func (p *helperPool) acquire(s *shareConn, back bool, rested time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, has := p.starting[s]; has {
		return true // the second try of one start
	}
	delete(p.running, s)
	var idlest *shareConn
	for a := range p.running {
		if _, starts := p.starting[a]; starts {
			continue
		}
		switch idle, runs := a.idleSince(); {
		case !runs:
			delete(p.running, a)
		case idle > rested:
			idlest, rested = a, idle
		}
	}
	trying := 0
	for _, back := range p.starting {
		if back {
			trying++
		}
	}
	if back && trying >= max(1, p.limit/2) {
		return false
	}
	if len(p.running) >= p.limit {
		if idlest == nil || !idlest.evict() {
			return false
		}
		delete(p.running, idlest)
	}
	p.starting[s], p.running[s] = back, struct{}{}
	return true
}

// release says that s has started its helper, or will not.
func (p *helperPool) release(s *shareConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.starting, s)
}

// acquireHelperSlot waits for a place for a helper. The caller has mountLock, and settles it.
func (s *shareConn) acquireHelperSlot(ctx context.Context, patient bool) error {
	for began := time.Now(); !s.life.pool.acquire(s, patient, max(0, rest-time.Since(began))); {
		if !patient && time.Since(began) > poolTimeout {
			return fmt.Errorf("%w: %d shares are being worked on", ErrBusy, s.life.pool.limit)
		}
		select {
		case <-time.After(poolPoll):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// idleSince returns for how long the helper has had nothing to do, not above zero if it
// has, and whether there is one.
func (s *shareConn) idleSince() (idle time.Duration, runs bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active > 0 {
		return 0, s.helper != nil
	}
	return time.Since(s.used), s.helper != nil
}

// evict ends the helper, if it has nothing to do.
func (s *shareConn) evict() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.helper == nil || s.active > 0 {
		return false
	}
	s.exiting, s.helper = s.helper, nil
	s.endExiting()
	return true
}
