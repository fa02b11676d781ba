package share

import (
	"context"
	"time"

	"k8s.io/klog/v2"
)

// interest is how long a share that is set aside is tried again after an operation
// was last asked for on it. Later the next operation has it tried.
const interest = time.Hour

// slowest is how many times Options.ProbeEvery grows.
const slowest = 6

// setAside makes all operations fail at once until the share works again, because
// of what the helper h met; nil is one that could not be taken into use. If another
// is in use since, it says nothing about now.
func (s *access) setAside(h Helper, reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h != nil && s.latest != h {
		return
	}
	if h != nil && s.helper == h { // else somebody saw before that it is gone
		s.old, s.helper = h, nil
	}
	if s.down == nil {
		s.since = time.Now()
		klog.InfoS("Share set aside", "share", s.ref.Share.String(), "reason", reason)
	}
	s.down = reason
	s.probe(s.options.ProbeEvery)
}

// probe has somebody try the share again, first after so long. The caller has the lock.
func (s *access) probe(first time.Duration) {
	if s.probing || s.closed {
		return
	}
	s.probing = true
	s.life.background.Go(func() { s.bringBack(first) })
}

// bringBack tries the share again and again, until it works, nobody wants it any
// more, or the Manager closes.
func (s *access) bringBack(first time.Duration) {
	ctx, cancel := s.life.bound(context.Background())
	defer cancel()
	timer := time.NewTimer(first)
	defer timer.Stop()
	for wait := s.options.ProbeEvery; ; wait = min(2*wait, slowest*s.options.ProbeEvery) {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if !s.wanted() {
			return
		}
		if s.tryAgain(ctx) {
			s.options.OnRecovery()
			return
		}
		timer.Reset(wait)
	}
}

// wanted reports whether an operation was asked for lately. If not, the next one
// starts another goroutine.
func (s *access) wanted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.probing = time.Since(s.asked) < interest
	return s.probing
}

// tryAgain reports whether the share works again. If so, s.probing is false.
func (s *access) tryAgain(ctx context.Context) bool {
	if err := s.takeTurn(ctx); err != nil {
		return false
	}
	defer s.giveTurn()
	defer s.life.places.settle(s)
	// An operation that had begun before it was set aside may have done it.
	if s.isUp() {
		return true
	}
	started := time.Now()
	h, err := s.reach(ctx, true)
	s.mu.Lock()
	if err == nil {
		err = s.adopt(h)
	}
	if s.down = err; err == nil {
		s.probing = false
	}
	s.mu.Unlock()
	if ctx.Err() == nil {
		s.options.Observe(s.ref.Share, "probe", err, time.Since(started))
	}
	return err == nil
}

func (s *access) isUp() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down == nil {
		s.probing = false
	}
	return s.down == nil
}
