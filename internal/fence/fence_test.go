package fence

import (
	"errors"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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

func TestFenceSaysUntilWhenAndSinceWhenNot(t *testing.T) {
	clock := &boot{now: time.Hour}
	fence := &Fence{Clock: clock.read}
	refused := func(want string) {
		t.Helper()
		if err := fence.Check(); !errors.Is(err, ErrLost) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	refused("never had it")
	if fence.Until() != 0 {
		t.Errorf("until %v before the first renewal", fence.Until())
	}
	if !fence.Extend(time.Hour, 10*time.Second) || fence.Check() != nil || fence.Until() != time.Hour+10*time.Second {
		t.Fatalf("until %v: %v", fence.Until(), fence.Check())
	}
	// An answer that comes late does not take back what a later renewal gave.
	clock.pass(9 * time.Second)
	if !fence.Extend(time.Hour-time.Second, 10*time.Second) || fence.Until() != time.Hour+10*time.Second {
		t.Errorf("until %v", fence.Until())
	}
	clock.pass(time.Second)
	refused("it ran out 0s ago")
	clock.pass(3 * time.Second)
	refused("it ran out 3s ago")
	if fence.Extend(clock.read(), 10*time.Second) {
		t.Error("it came back after it had run out")
	}
	fence.Revoke("given up") // too late to be the reason
	refused("it ran out 3s ago")
}

// A renewal that took longer than it is worth gives no right to write.
func TestFenceOfASlowRenewal(t *testing.T) {
	clock := &boot{now: time.Hour}
	fence := &Fence{Clock: clock.read}
	if fence.Extend(time.Hour-11*time.Second, 10*time.Second) || fence.Check() == nil {
		t.Error("may write")
	}
}

func TestFenceExpiresForGood(t *testing.T) {
	clock := &boot{now: time.Hour}
	held := &Fence{Clock: clock.read}
	held.Extend(time.Hour, 10*time.Second)
	for name, fence := range map[string]*Fence{"new": {Clock: clock.read}, "held": held, "unfenced": {until: math.MaxInt64, Clock: clock.read}} {
		fence.Revoke("given up")
		if fence.Check() == nil || fence.Until() > time.Hour || fence.Extend(time.Hour, time.Minute) {
			t.Errorf("%s: until %v: %v", name, fence.Until(), fence.Check())
		}
	}
}

func TestUnfenced(t *testing.T) {
	if fence := Unfenced(); fence.Check() != nil || fence.Until() != math.MaxInt64 {
		t.Errorf("until %v: %v", fence.Until(), fence.Check())
	}
}

// The clock is the one that helper processes of this machine read too.
func TestFenceIsOnTheBootTimeClock(t *testing.T) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		t.Fatal(err)
	}
	if read := BootTime() - time.Duration(now.Nano()); read < 0 || read > time.Minute {
		t.Errorf("read %v after the boot-time clock", read)
	}
	fence := &Fence{}
	if start := BootTime(); !fence.Extend(start, time.Minute) || fence.Until() != start+time.Minute {
		t.Errorf("started %v, until %v", start, fence.Until())
	}
}
