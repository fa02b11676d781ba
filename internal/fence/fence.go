// Package fence says until when this process may change anything: the write fence that the
// election moves, and that every writer asks.
package fence

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrLost says that this process does not hold the lease: it may not write.
var ErrLost = errors.New("lease not held")

// Fence is the point on CLOCK_BOOTTIME until which this process may write. It says
// so without asking anybody, and is right after a freeze too: that clock goes on
// while the process is stopped or the machine sleeps.
//
// Every renewal moves the point on. Once it has passed it stays where it is:
// another process may have written since, so a Fence serves one Run and the
// program ends with it. The zero Fence is that of a process which was not elected
// yet. Check and Until of a nil one never end. All methods may be called concurrently, and none blocks.
type Fence struct {
	// Clock is BootTime when nil; tests have their own.
	Clock func() time.Duration

	mu    sync.Mutex
	until time.Duration // 0: never had
	ended string        // why it is over before its time; empty when it is not

}

// Unfenced returns the Fence of a program that runs without an election: it may
// write until Revoke.
func Unfenced() *Fence { return &Fence{until: math.MaxInt64} }

// Until returns the point on CLOCK_BOOTTIME until which this process may write,
// math.MaxInt64 for ever, or 0 if it never had the lease.
func (f *Fence) Until() time.Duration {
	if f == nil {
		return math.MaxInt64
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.until
}

// Check returns nil as long as this process may write, and otherwise an error that
// matches ErrLost and says since when not.
func (f *Fence) Check() error {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.Now()
	switch ago := (now - f.until).Round(time.Millisecond); {
	case now < f.until:
		return nil
	case f.until == 0:
		return fmt.Errorf("%w: this process never had it", ErrLost)
	case f.ended != "":
		return fmt.Errorf("%w: %s %v ago", ErrLost, f.ended, ago)
	default:
		return fmt.Errorf("%w: it ran out %v ago", ErrLost, ago)
	}
}

// Revoke ends the right to write now and for good; Check says why.
func (f *Fence) Revoke(why string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.Now()
	if f.isExpired(now) {
		return // what ended it first is what counts
	}
	f.ended, f.until = why, min(f.until, now)
}

// EverHeld reports whether this process had the lease at any time.
func (f *Fence) EverHeld() bool { return f.Until() != 0 }

// Expired reports whether there was a right to write which has ended.
func (f *Fence) Expired() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.isExpired(f.Now())
}

func (f *Fence) isExpired(now time.Duration) bool {
	return f.ended != "" || f.until != 0 && now >= f.until
}

// Extend moves the fence to length after start, a point that has passed. It reports
// whether this process may write now.
func (f *Fence) Extend(start, length time.Duration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.isExpired(f.Now()) {
		return false
	}
	f.until = max(f.until, start+length)
	return f.Now() < f.until
}

// Follow sets the fence to what Until returned in the process whose helper this one is. It
// may go back, too.
func (f *Fence) Follow(until time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.until = until
}

// Now returns the time on the fence's clock.
func (f *Fence) Now() time.Duration {
	if f.Clock != nil {
		return f.Clock()
	}
	return BootTime()
}

// BootTime returns the time on CLOCK_BOOTTIME.
func BootTime() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return math.MaxInt64 // no kernel since 2.6.39 lacks this clock; without it nobody may write
	}
	return time.Duration(now.Nano())
}
