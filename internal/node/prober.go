package node

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// defaultStatfsTimeout is much longer than a server that works takes.
const defaultStatfsTimeout = 5 * time.Second

// errNoAnswer: the file system's server has not answered in time. It matches
// context.DeadlineExceeded.
var errNoAnswer = fmt.Errorf("no answer from the server: %w", context.DeadlineExceeded)

// errBusy: the server answers for other volumes, but so slowly that this one was not
// asked for in time.
var errBusy = fmt.Errorf("the server is slow, and busy with other volumes: %w", context.DeadlineExceeded)

// Space is how much a file system holds, and how much of that is taken. Inodes are 0
// where the server does not count them.
type Space struct {
	Bytes, BytesUsed, BytesAvailable    int64
	Inodes, InodesUsed, InodesAvailable int64
}

// statfs is statfs(2).
func statfs(path string) (Space, error) {
	var s unix.Statfs_t
	for {
		if err := unix.Statfs(path, &s); err == nil {
			break
		} else if !errors.Is(err, unix.EINTR) {
			return Space{}, fmt.Errorf("statfs %s: %w", path, err)
		}
	}
	size := uint64(max(s.Bsize, 1))
	return Space{
		Bytes: times(s.Blocks, size), BytesUsed: times(s.Blocks-min(s.Bfree, s.Blocks), size), BytesAvailable: times(s.Bavail, size),
		Inodes: times(s.Files, 1), InodesUsed: times(s.Files-min(s.Ffree, s.Files), 1), InodesAvailable: times(s.Ffree, 1),
	}, nil
}

// times returns a*b, or the greatest int64: some servers report boundless space.
func times(a, b uint64) int64 {
	high, low := bits.Mul64(a, b)
	if high > 0 || low > math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(low)
}

// prober asks file systems for their space, which also shows whether their
// servers answer. A call that gets no answer can't be ended: it holds a thread until
// the server is back. So there is one at a time for each file system, however many
// volumes are on it, and while it is overdue no other caller waits. Its methods may be
// called concurrently.
type prober struct {
	statfs  func(path string) (Space, error)
	timeout time.Duration

	mu      sync.Mutex
	running map[string]*call // by device
	last    map[string]Space // by path: what the last good answer said
}

// call is one statfs.
type call struct {
	path    string
	due     time.Time
	dropped bool          // the space is not to be kept: path was unmounted; guarded by the prober's lock
	done    chan struct{} // closed once space and err are set
	space   Space
	err     error
}

func newProber(ask func(string) (Space, error), timeout time.Duration) *prober {
	if ask == nil {
		ask = statfs
	}
	if timeout <= 0 {
		timeout = defaultStatfsTimeout
	}
	return &prober{statfs: ask, timeout: timeout, running: map[string]*call{}, last: map[string]Space{}}
}

// ask returns the space of what is mounted at path, of the file system device. Without
// an answer in time the error is errNoAnswer, at once where an earlier call is overdue
// and still waits. With an error the space is what was last known, or zero.
func (p *prober) ask(ctx context.Context, device, path string) (Space, error) {
	due := time.Now().Add(p.timeout)
	for {
		c := p.join(device, path, due)
		ended, err := c.wait(ctx, due)
		switch {
		case ended && c.path == path:
			if c.err == nil {
				return c.space, nil
			}
			return p.known(path), c.err
		case !ended:
			return p.known(path), err
		}
		// It was another volume's, whose answer says nothing about this one.
	}
}

// join returns the call that runs on a device, one for path if there was none.
func (p *prober) join(device, path string, due time.Time) *call {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.running[device]; c != nil {
		return c
	}
	c := &call{path: path, due: due, done: make(chan struct{})}
	p.running[device] = c
	go func() {
		c.space, c.err = p.statfs(path)
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.running, device)
		if c.err == nil && !c.dropped {
			p.last[path] = c.space
		}
		close(c.done)
	}()
	return c
}

// wait waits for a call's end until it or the caller is overdue, or ctx ends.
func (c *call) wait(ctx context.Context, due time.Time) (ended bool, err error) {
	late := errBusy
	if !c.due.After(due) {
		due, late = c.due, errNoAnswer
	}
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	select {
	case <-c.done:
		return true, nil
	case <-timer.C:
		return false, late
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

func (p *prober) known(path string) Space {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last[path]
}

// forget drops the last known space of a path that was unmounted.
func (p *prober) forget(path string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.last, path)
	for _, c := range p.running {
		if c.path == path {
			c.dropped = true
		}
	}
}
