package publish

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// So many there are at least.
	cycles = 200
	kills  = 40

	cyclesWidth = 16
)

// The plugin is killed at random moments, between mount and answer too, under many
// publishes and unpublishes: after each success there is exactly one mount, or none, and
// the next call puts right what a killed one left.
func testKills(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	p, server := startPlugin(t), newServer(t)
	v := newVolume(t, server, "v")
	var group errgroup.Group
	group.SetLimit(cyclesWidth + 1)
	enough := make(chan struct{})
	var killed atomic.Int32
	group.Go(func() error {
		for {
			select {
			case <-enough:
				return nil
			case <-time.After(time.Duration(300+rand.IntN(3000)) * time.Millisecond):
			}
			if err := p.signal(syscall.SIGKILL, soon); err != nil {
				return err
			}
			killed.Add(1)
			if err := p.start(ctx); err != nil {
				return err
			}
		}
	})
	var work errgroup.Group
	work.SetLimit(cyclesWidth)
	done := 0
	for ; ctx.Err() == nil && (done < cycles || killed.Load() < kills); done++ {
		i := done
		work.Go(func() error { return p.cycle(ctx, t, v, p.target(fmt.Sprint("pod-", i), "v")) })
	}
	err := work.Wait()
	close(enough)
	check(t, group.Wait())
	check(t, err)
	t.Logf("%d cycles with %d kills", done, killed.Load())
	if done < cycles || killed.Load() < kills {
		t.Error("that is too few")
	}
	if mounts := mountsBelow(t, p.dir); len(mounts) > 0 {
		t.Errorf("left mounted: %q", mounts)
	}
}

// cycle publishes and unpublishes, again and again until each succeeds.
func (p *plugin) cycle(ctx context.Context, t *testing.T, v vol, target string) error {
	if err := persist(ctx, func() error { return p.publish(ctx, v, target) }); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	mountID(t, target) // exactly one
	if err := persist(ctx, func() error { return p.unpublish(ctx, target) }); err != nil {
		return fmt.Errorf("unpublish: %w", err)
	}
	if _, err := os.Lstat(target); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", target, err)
	}
	return nil
}

// persist repeats a call while it fails in a way that says: again.
func persist(ctx context.Context, call func() error) error {
	for {
		err := call()
		switch status.Code(err) {
		case codes.OK:
			return nil
		case codes.Unavailable, codes.Aborted, codes.DeadlineExceeded, codes.Canceled:
		default:
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
