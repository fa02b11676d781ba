package share

import (
	"context"
	"time"
)

// discard lets no new operation use h, and ends it.
func (s *shareConn) discard(h Helper) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.helper != h || s.closed { // somebody else has, or will
		return
	}
	s.exiting, s.helper = h, nil
	s.endExiting()
}

// endExiting ends the helper that exits. The caller has the lock.
func (s *shareConn) endExiting() {
	// An error shows again when the next helper is to be started.
	s.life.background.Go(func() { _ = s.waitExit(context.Background()) })
}

// endWhenIdle ends h when it has had nothing to do for Options.Idle.
func (s *shareConn) endWhenIdle(h Helper) {
	timer := time.NewTimer(s.options.Idle)
	defer timer.Stop()
	for {
		select {
		case <-s.life.closing:
			return
		case <-h.Done():
			s.discard(h)
			return
		case <-timer.C:
		}
		left := s.idleIn(h)
		if left <= 0 {
			_ = s.waitExit(context.Background()) // as in endOld
			return
		}
		timer.Reset(left)
	}
}

// idleIn returns after what time h may be idle. If that is now, no new operation
// uses it.
func (s *shareConn) idleIn(h Helper) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := s.options.Idle - time.Since(s.used)
	switch {
	case s.helper != h:
		return 0 // whoever discarded it ends it, too
	case s.active > 0:
		return s.options.Idle
	case left <= 0:
		s.exiting, s.helper = h, nil
	}
	return left
}
