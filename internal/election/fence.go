package election

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
// yet. All methods may be called concurrently, and none blocks.
type Fence struct {
	mu    sync.Mutex
	until time.Duration // 0: never had
	ended string        // why it is over before its time; empty when it is not

	clock func() time.Duration // for tests; bootTime when nil
}

// Unfenced returns the Fence of a program that runs without an election: it may
// write until Expire.
func Unfenced() *Fence { return &Fence{until: math.MaxInt64} }

// Until returns the point on CLOCK_BOOTTIME until which this process may write,
// math.MaxInt64 for ever, or 0 if it never had the lease.
func (f *Fence) Until() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.until
}

// Check returns nil as long as this process may write, and otherwise an error that
// matches ErrLost and says since when not.
func (f *Fence) Check() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
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

// Expire ends the right to write now and for good.
func (f *Fence) Expire() { f.end("given up") }

func (f *Fence) end(why string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	if f.isOver(now) {
		return // what ended it first is what counts
	}
	f.ended, f.until = why, min(f.until, now)
}

// held reports whether this process had the lease at any time.
func (f *Fence) held() bool { return f.Until() != 0 }

// over reports whether there was a right to write which has ended.
func (f *Fence) over() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.isOver(f.now())
}

func (f *Fence) isOver(now time.Duration) bool {
	return f.ended != "" || f.until != 0 && now >= f.until
}

// extend moves the fence to length after start, a point that has passed. It reports
// whether this process may write now.
func (f *Fence) extend(start, length time.Duration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.isOver(f.now()) {
		return false
	}
	f.until = max(f.until, start+length)
	return f.now() < f.until
}

func (f *Fence) now() time.Duration {
	if f.clock != nil {
		return f.clock()
	}
	return bootTime()
}

func bootTime() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return math.MaxInt64 // no kernel since 2.6.39 lacks this clock; without it nobody may write
	}
	return time.Duration(now.Nano())
}
