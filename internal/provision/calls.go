package provision

import (
	"context"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/types"
)

// calls are the calls of all names that run, and the end of them.
type calls struct {
	// A token for each call that runs; nil is no limit.
	provisions, deletions chan struct{}

	mu       sync.Mutex
	draining bool
	working  map[string]int // volumes by name
	idle     sync.WaitGroup
	finished map[string]types.UID // foreign volumes whose directories are gone, by name
}

func newCalls(workers int) *calls {
	c := &calls{working: map[string]int{}, finished: map[string]types.UID{}}
	if workers > 0 {
		c.provisions, c.deletions = make(chan struct{}, workers), make(chan struct{}, workers)
	}
	return c
}

// Drain lets no new call of any name begin and waits until those that run have ended
// or ctx has.
func (p *Provisioner) Drain(ctx context.Context) error {
	c := p.calls
	c.mu.Lock()
	c.draining = true
	c.mu.Unlock()
	done := make(chan struct{})
	go func() {
		c.idle.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("some calls have not ended: %w", ctx.Err())
	}
}

// enter begins work on a volume, when it is its turn, unless the provisioner stops or
// is not the one to work. What begins ends with calls.leave.
func (p *Provisioner) enter(ctx context.Context, name string, turns chan struct{}) bool {
	if turns != nil {
		select {
		case turns <- struct{}{}:
		default:
			select {
			case turns <- struct{}{}:
			case <-ctx.Done():
				return false
			}
		}
	}
	if p.options.Lease() == nil && p.calls.begin(name) {
		return true
	}
	if turns != nil {
		<-turns
	}
	return false
}

func (c *calls) begin(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining {
		return false
	}
	c.idle.Add(1)
	c.working[name]++
	return true
}

func (c *calls) leave(name string, turns chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.working[name]--; c.working[name] == 0 {
		delete(c.working, name)
	}
	c.idle.Done()
	if turns != nil {
		<-turns
	}
}

// shared reports whether another call than the caller's works on the volume.
func (c *calls) shared(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.working[name] > 1
}

// finish remembers that the directory of a foreign volume is gone, as long as exists
// says that the volume exists: the API server may not take a note of it.
func (c *calls) finish(name string, uid types.UID, exists func(name string) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for other := range c.finished {
		if !exists(other) {
			delete(c.finished, other)
		}
	}
	c.finished[name] = uid
}

func (c *calls) isFinished(name string, uid types.UID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	is, found := c.finished[name]
	return found && is == uid
}
