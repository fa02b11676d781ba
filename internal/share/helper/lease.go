package helper

import (
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Lease says how long the provisioner may change anything.
type Lease interface {
	// Until returns the point on CLOCK_BOOTTIME, which goes on while the machine
	// sleeps, before which steps may be taken. It may be called at any time and
	// must not block.
	Until() time.Duration
}

// leaseEvery is how often a helper at work is told the lease. A provisioner that is
// frozen tells nothing any more, and its helper stops when the last one runs out.
const leaseEvery = time.Second

// leash is the lease as a helper was told it last. Until it was told one there is none.
type leash struct{ until atomic.Pointer[time.Duration] }

// check returns an error if the lease has run out.
func (l *leash) check() error {
	until := l.until.Load()
	if until == nil {
		return nil
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return fmt.Errorf("read the clock of the lease: %w", err)
	}
	if left := *until - time.Duration(now.Nano()); left <= 0 {
		return fmt.Errorf("it ended %v ago", (-left).Round(time.Millisecond))
	}
	return nil
}
