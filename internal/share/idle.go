package share

import (
	"context"
	"time"
)

// discard lets no new operation use h, and ends it.
func (s *access) discard(h Helper) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.helper != h || s.closed { // somebody else has, or will
		return
	}
	s.old, s.helper = h, nil
	s.endOld()
}

// endOld ends the old helper. The caller has the lock.
func (s *access) endOld() {
	// An error shows again when the next helper is to be started.
	s.life.background.Go(func() { _ = s.bury(context.Background()) })
}

// endWhenIdle ends h when it has had nothing to do for Options.Idle.
func (s *access) endWhenIdle(h Helper) {
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
			_ = s.bury(context.Background()) // as in endOld
			return
		}
		timer.Reset(left)
	}
}

// idleIn returns after what time h may be idle. If that is now, no new operation
// uses it.
func (s *access) idleIn(h Helper) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := s.options.Idle - time.Since(s.used)
	switch {
	case s.helper != h:
		return 0 // whoever discarded it ends it, too
	case s.active > 0:
		return s.options.Idle
	case left <= 0:
		s.old, s.helper = h, nil
	}
	return left
}
