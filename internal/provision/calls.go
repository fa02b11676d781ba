package provision

import (
	"context"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/types"
)

// calls are those that run, and the end of them.
type calls struct {
	mu       sync.Mutex
	draining bool
	working  map[string]int // volumes by name
	idle     sync.WaitGroup
	finished map[string]types.UID // adopted volumes whose directories are gone, by name
}

func newCalls() *calls {
	return &calls{working: map[string]int{}, finished: map[string]types.UID{}}
}

// Drain lets no new call begin and waits until those that run have ended
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

// enter begins work on a volume, unless the provisioner stops or is not the one to work.
// What begins ends with calls.leave.
func (p *Provisioner) enter(name string) bool {
	return p.options.Fence() == nil && p.calls.begin(name)
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

func (c *calls) leave(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.working[name]--; c.working[name] == 0 {
		delete(c.working, name)
	}
	c.idle.Done()
}

// shared reports whether another call than the caller's works on the volume.
func (c *calls) shared(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.working[name] > 1
}

// finish remembers that the directory of an adopted volume is gone, as long as exists
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
