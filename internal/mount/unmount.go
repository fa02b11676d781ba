package mount

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"time"
)

// Unmounted is how one layer of a target was unmounted.
type Unmounted string

// How a layer can be unmounted.
const (
	Plain    Unmounted = "plain"    // by umount(8)
	Detached Unmounted = "detached" // by umount -l: it was busy, or its server did not answer
	Failed   Unmounted = "failed"   // it is still mounted
)

// Unmount unmounts every layer that is mounted on target, with umount(8) and,
// where that does not end in time or fails, by detaching (umount -l). It never
// forces (umount -f): volumes of one export share a superblock, and forcing one
// fails the writes of the others. Nothing mounted is success. It returns nil only
// when mountinfo shows nothing on target, and no mount(8) that was killed, or whose
// program was, can still put something there. It returns when ctx ends at the latest,
// or, where that has no deadline, soon after; what it runs is killed before that.
func (m *Mounter) Unmount(ctx context.Context, target string) error {
	target, err := canonical(target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return m.unmount(ctx, target, func() error { return m.pending(target) })
}

func (m *Mounter) unmount(ctx context.Context, target string, stillPending func() error) error {
	for {
		// First: what ends after this look at it is in mountinfo by then, or never will be.
		pending := stillPending()
		layers, err := m.layers(target)
		if err != nil {
			return err
		}
		if len(layers) == 0 {
			return pending
		}
		if err := m.unmountTop(ctx, target, len(layers)); err != nil {
			return err
		}
	}
}

// unmountTop unmounts the topmost of so many layers. Another process may do so
// meanwhile: only mountinfo counts.
func (m *Mounter) unmountTop(ctx context.Context, target string, layers int) error {
	// -i: no helper that would call the server; -c: no look at the path itself.
	// It may wait for a dead server: half of the time is left for detaching.
	err := m.umount(ctx, timeLeft(ctx)/2, job{"umount", target}, "-n", "-c", "-i", target)
	kind := Plain
	left, readErr := m.layers(target)
	if readErr == nil && len(left) >= layers {
		err = m.umount(ctx, timeLeft(ctx), job{"umount -l", target}, "-n", "-c", "-i", "-l", target)
		kind = Detached
		left, readErr = m.layers(target)
	}
	if readErr == nil && len(left) < layers {
		m.options.Unmounted(kind)
		return nil
	}
	m.options.Unmounted(Failed)
	return errors.Join(err, readErr, fmt.Errorf("%s is still mounted", target))
}

// timeLeft returns how long an Unmount with this context may still take.
func timeLeft(ctx context.Context) time.Duration {
	if deadline, set := ctx.Deadline(); set {
		return time.Until(deadline)
	}
	return math.MaxInt64
}

// umount runs umount(8), which is killed after two thirds of limit at most. The rest is
// for its end after that.
func (m *Mounter) umount(ctx context.Context, limit time.Duration, what job, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, min(m.options.UnmountTimeout, limit/3*2))
	defer cancel()
	if output, err := m.runner.run(ctx, min(m.runner.grace, limit/3), what, nil, "umount", args...); err != nil {
		return fmt.Errorf("umount %s: %w", what.target, classify(output, err))
	}
	return nil
}
