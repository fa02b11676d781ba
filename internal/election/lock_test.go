package election

import (
	"context"
	"errors"
	"testing"
	"time"

	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// slow is a lease whose writes take time and end with err.
type slow struct {
	resourcelock.Interface
	clock *boot
	takes time.Duration
	err   error
	sent  int
}

func (s *slow) Update(context.Context, resourcelock.LeaderElectionRecord) error {
	s.sent++
	s.clock.pass(s.takes)
	return s.err
}

func (s *slow) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return s.Update(ctx, record)
}

func TestOnlyASuccessfulWriteCountsAndFromBeforeItsRequest(t *testing.T) {
	t.Parallel()
	clock := &boot{now: time.Hour}
	fence := &Fence{clock: clock.read}
	lease := &slow{clock: clock, takes: 3 * time.Second}
	l := &lock{Interface: lease, fence: fence, length: 10 * time.Second, limit: time.Minute}
	record := resourcelock.LeaderElectionRecord{}

	if err := l.Create(t.Context(), record); err != nil || fence.Until() != time.Hour+10*time.Second {
		t.Fatalf("created, until %v: %v", fence.Until(), err)
	}
	if err := l.Update(t.Context(), record); err != nil || fence.Until() != time.Hour+13*time.Second {
		t.Errorf("updated, until %v: %v", fence.Until(), err)
	}
	lease.err = errors.New("no answer")
	if err := l.Update(t.Context(), record); !errors.Is(err, lease.err) || fence.Until() != time.Hour+13*time.Second {
		t.Errorf("after a failure, until %v: %v", fence.Until(), err)
	}
	// Begun before the fence, answered after it.
	lease.err, lease.takes = nil, time.Minute
	if err := l.Update(t.Context(), record); !errors.Is(err, ErrLost) || fence.Check() == nil {
		t.Errorf("answered too late: %v, fence %v", err, fence.Check())
	}
	if err := l.Update(t.Context(), record); !errors.Is(err, ErrLost) || lease.sent != 4 {
		t.Errorf("after the fence: %v, %d requests", err, lease.sent)
	}
}
