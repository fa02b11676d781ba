// Package share is the provisioner's side of shares: it mounts a share on
// first use and keeps it, and has the directory work on each done by a helper
// process, so that a server that does not answer holds up its own volumes only,
// and those not for long.
package share

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"sharevol.dev/sharevol/internal/fence"
	"sharevol.dev/sharevol/internal/mount"
	"sharevol.dev/sharevol/internal/share/dirs"
	"sharevol.dev/sharevol/internal/share/helper"
	"sharevol.dev/sharevol/internal/share/operation"
	"sharevol.dev/sharevol/internal/volume"
)

var (
	// ErrUntouched says that the operation ended before it changed anything on the
	// share, or undid what it had changed.
	ErrUntouched = dirs.ErrUntouched
	// ErrNoAnswer says that the server did not answer in time. What was asked may
	// still take effect, unless the error matches ErrUntouched too.
	ErrNoAnswer = helper.ErrNoAnswer
	// ErrBusy says that the server, or the program, does as much as it may at a time.
	// It matches ErrUntouched, and the operation is worth another try soon.
	ErrBusy = errors.New("the server is busy")
	// ErrUnavailable says that the share did not answer, or could not be mounted, some time ago.
	// It matches ErrUntouched. Another try is of no use until Options.OnRecovery is called.
	ErrUnavailable = errors.New("the share is unavailable")
)

// Ref says which share to work on and how to mount it. The same share under
// other mount options is another mount, with a helper of its own, though none is
// started beside one that will not die.
type Ref struct {
	Share        volume.Share
	MountOptions []string
}

func (r Ref) key() string {
	return r.Share.String() + "\x00" + strings.Join(r.MountOptions, ",")
}

// Doer does operations on shares, as a Manager does.
type Doer interface {
	Do(ctx context.Context, ref Ref, operation string, arguments, result any) error
	Serves(volume.Share) bool
}

// Do has doer do an operation on a share.
func Do[A, R any](ctx context.Context, doer Doer, ref Ref, op operation.Operation[A, R], arguments A) (result R, err error) {
	err = doer.Do(ctx, ref, op.Name, arguments, &result)
	return result, err
}

// Mounter mounts shares; see mount.Mounter for what is promised.
type Mounter interface {
	Mount(ctx context.Context, spec mount.Spec, target string) error
	Unmount(ctx context.Context, target string) error
}

// Helper does the directory work on one share; see helper.Process for what is promised.
type Helper interface {
	operation.Doer
	Open(ctx context.Context) error
	Probe(ctx context.Context) error
	End(ctx context.Context) error
	Done() <-chan struct{}
	PID() int
}

// Options of a Manager. All fields but the Mounter, or Premounted, have a default.
type Options struct {
	Mounter Mounter
	// Premounted, when not empty, are the paths at which shares are mounted already,
	// by kubelet for example. They are used as they are, under any mount options,
	// nothing is mounted or unmounted, and other shares are refused.
	Premounted map[volume.Share]string
	// ReadOnly has shares mounted read-only; premounted ones are used as they are.
	ReadOnly bool
	// Dir is a local directory of our own, below which shares are mounted.
	// /run/sharevol when empty.
	Dir string
	// Timeout bounds one file operation, and in a long removal the time between
	// two steps. 30 s when zero.
	Timeout time.Duration
	// Concurrency is how many creations, and how many removals, one server does at a
	// time, on all of its shares together, 8 when zero.
	Concurrency int
	// Patience is how long an operation waits for its turn on a server whose
	// operations usually take less than 100 ms, 5 s when zero. On one on which nothing
	// moves it waits a second at most, and on a slow one not at all.
	Patience time.Duration
	// Helpers is how many helpers there are at a time, on all shares together, 16
	// when zero. Those that were told to end, or were killed, do not count. A share that
	// needs one takes the place of one that has nothing to do; if there is none, its
	// operation fails with ErrBusy after a second.
	Helpers int
	// Idle is after how long without operations a share's helper ends, 1 min when
	// zero. The share stays mounted until Close.
	Idle time.Duration
	// ProbeEvery is how long after a share became unavailable it is tried again, 5 s when
	// zero. Later times between two tries grow to six times that.
	ProbeEvery time.Duration
	// Fence bounds all steps on shares; nil if there is none.
	Fence *fence.Fence
	// OnRecovery, when not nil, is called each time that a share which had been set
	// aside works again. It must not block.
	OnRecovery func()
	// Observe, when not nil, is told of each operation that has ended, of each
	// "mount", and of each "probe" of a share that is unavailable. It must not block.
	Observe func(share volume.Share, operation string, err error, observe time.Duration)
	// Start starts a helper process, helper.Start when nil.
	Start func(helper.Options) (Helper, error)
}

func (o Options) withDefaults() Options {
	if o.Dir == "" {
		o.Dir = "/run/sharevol"
	}
	if o.Concurrency == 0 {
		o.Concurrency = 8
	}
	if o.Helpers == 0 {
		o.Helpers = 16
	}
	for value, otherwise := range map[*time.Duration]time.Duration{
		&o.Timeout: 30 * time.Second, &o.Patience: 5 * time.Second, &o.Idle: time.Minute, &o.ProbeEvery: 5 * time.Second,
	} {
		if *value == 0 {
			*value = otherwise
		}
	}
	if o.OnRecovery == nil {
		o.OnRecovery = func() {}
	}
	if o.Observe == nil {
		o.Observe = func(volume.Share, string, error, time.Duration) {}
	}
	if o.Start == nil {
		o.Start = func(options helper.Options) (Helper, error) {
			// Not in one statement: a nil *Process is no nil Helper.
			p, err := helper.Start(options)
			if err != nil {
				return nil, err
			}
			return p, nil
		}
	}
	return o
}

// State is how a share is. One that has not been used yet counts as up.
type State struct {
	Share        volume.Share
	MountOptions []string  // empty for a premounted share
	Up           bool      // false while it is unavailable
	Since        time.Time // since when it is up or unavailable
	PID          int       // of its helper, zero if it has none at the moment
}

// untouched makes err match ErrUntouched.
func untouched(err error) error {
	if errors.Is(err, ErrUntouched) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUntouched, err)
}
