package election

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"sharevol.dev/sharevol/internal/fence"
)

// boot is a boot-time clock that a test moves.
type boot struct {
	mu  sync.Mutex
	now time.Duration
}

func (b *boot) read() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

func (b *boot) pass(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now += d
}

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
	held := &fence.Fence{Clock: clock.read}
	lease := &slow{clock: clock, takes: 3 * time.Second}
	l := &lock{Interface: lease, fence: held, length: 10 * time.Second, limit: time.Minute}
	record := resourcelock.LeaderElectionRecord{}

	if err := l.Create(t.Context(), record); err != nil || held.Until() != time.Hour+10*time.Second {
		t.Fatalf("created, until %v: %v", held.Until(), err)
	}
	if err := l.Update(t.Context(), record); err != nil || held.Until() != time.Hour+13*time.Second {
		t.Errorf("updated, until %v: %v", held.Until(), err)
	}
	lease.err = errors.New("no answer")
	if err := l.Update(t.Context(), record); !errors.Is(err, lease.err) || held.Until() != time.Hour+13*time.Second {
		t.Errorf("after a failure, until %v: %v", held.Until(), err)
	}
	// Begun before the fence, answered after it.
	lease.err, lease.takes = nil, time.Minute
	if err := l.Update(t.Context(), record); !errors.Is(err, fence.ErrLost) || held.Check() == nil {
		t.Errorf("answered too late: %v, fence %v", err, held.Check())
	}
	if err := l.Update(t.Context(), record); !errors.Is(err, fence.ErrLost) || lease.sent != 4 {
		t.Errorf("after the fence: %v, %d requests", err, lease.sent)
	}
}
