package nfsmount

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// Unmounted says how one layer of a target was unmounted.
type Unmounted string

// The kinds.
const (
	Plain    Unmounted = "plain"    // by umount(8)
	Detached Unmounted = "detached" // by umount -l: it was busy, or its server did not answer
	Failed   Unmounted = "failed"   // it is still mounted
)

// Unmount takes away every layer that is mounted on target, with umount(8) and,
// where that does not end in time or fails, by detaching (umount -l). It never
// forces (umount -f): volumes of one export share a superblock, and forcing one
// fails the writes of the others. Nothing mounted is success. It returns nil only
// when mountinfo shows nothing on target, and no mount(8) that was killed, or whose
// program was, can still put something there. When ctx ends, what it runs is killed.
func (m *Mounter) Unmount(ctx context.Context, target string) error {
	target, err := canonical(target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return m.unmount(ctx, target, func() error { return m.unended(target) })
}

func (m *Mounter) unmount(ctx context.Context, target string, unended func() error) error {
	for {
		// First: what ends after this look at it is in mountinfo by then, or never will be.
		pending := unended()
		layers, err := m.Layers(target)
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

// unmountTop takes away the topmost of so many layers. Another process may do so
// meanwhile: only mountinfo counts.
func (m *Mounter) unmountTop(ctx context.Context, target string, layers int) error {
	// -i: no helper that would call the server; -c: no look at the path itself.
	err := m.umount(ctx, m.plainTimeout(ctx), job{"umount", target}, "-n", "-c", "-i", target)
	kind := Plain
	left, readErr := m.Layers(target)
	if readErr == nil && len(left) >= layers {
		err = m.umount(ctx, m.options.UnmountTimeout, job{"umount -l", target}, "-n", "-c", "-i", "-l", target)
		kind = Detached
		left, readErr = m.Layers(target)
	}
	if readErr == nil && len(left) < layers {
		m.options.Unmounted(kind)
		return nil
	}
	m.options.Unmounted(Failed)
	return errors.Join(err, readErr, fmt.Errorf("%s is still mounted", target))
}

// plainTimeout bounds the umount that may wait for a dead server, so that there is
// time left for detaching.
func (m *Mounter) plainTimeout(ctx context.Context) time.Duration {
	timeout := m.options.UnmountTimeout
	if deadline, set := ctx.Deadline(); set {
		timeout = min(timeout, time.Until(deadline)/3)
	}
	return timeout
}

func (m *Mounter) umount(ctx context.Context, timeout time.Duration, what job, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if output, err := m.runner.run(ctx, what, nil, "umount", args...); err != nil {
		return fmt.Errorf("umount %s: %w", what.target, classify(output, err))
	}
	return nil
}
