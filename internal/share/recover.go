package share

import (
	"context"
	"time"

	"k8s.io/klog/v2"
)

// interest is how long a share that is unavailable is tried again after an operation
// was last asked for on it. Later the next operation has it tried.
const interest = time.Hour

// slowest is how many times Options.ProbeEvery grows.
const slowest = 6

// markUnavailable makes all operations fail at once until the share works again, because
// of what the helper h met; nil is one that could not be taken into use. If another
// is in use since, it says nothing about now.
func (s *shareConn) markUnavailable(h Helper, reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h != nil && s.latest != h {
		return
	}
	if h != nil && s.helper == h { // else somebody saw before that it is gone
		s.exiting, s.helper = h, nil
	}
	if s.down == nil {
		s.since = time.Now()
		klog.InfoS("Share marked unavailable", "share", s.ref.Share.String(), "reason", reason)
	}
	s.down = reason
	s.probe(s.options.ProbeEvery)
}

// probe has somebody try the share again, first after so long. The caller has the lock.
func (s *shareConn) probe(first time.Duration) {
	if s.probing || s.closed {
		return
	}
	s.probing = true
	s.life.background.Go(func() { s.recoverLoop(first) })
}

// recoverLoop tries the share again and again, until it works, nobody wants it any
// more, or the Manager closes.
func (s *shareConn) recoverLoop(first time.Duration) {
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
		if !s.hasInterest() {
			return
		}
		if s.tryRecover(ctx) {
			s.options.OnRecovery()
			return
		}
		timer.Reset(wait)
	}
}

// hasInterest reports whether an operation was asked for lately. If not, the next one
// starts another goroutine.
func (s *shareConn) hasInterest() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.probing = time.Since(s.asked) < interest
	return s.probing
}

// tryRecover reports whether the share works again. If so, s.probing is false.
func (s *shareConn) tryRecover(ctx context.Context) bool {
	if err := s.lockMount(ctx); err != nil {
		return false
	}
	defer s.unlockMount()
	defer s.life.pool.release(s)
	// An operation that had begun before it became unavailable may have done it.
	if s.isUp() {
		return true
	}
	started := time.Now()
	h, err := s.connect(ctx, true)
	s.mu.Lock()
	if err == nil {
		err = s.install(h)
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

func (s *shareConn) isUp() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down == nil {
		s.probing = false
	}
	return s.down == nil
}
