package share

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"sharevol.dev/sharevol/internal/volume"
)

// Manager keeps the mounts and the helpers. Its methods may be called
// concurrently; package dirs says what the operations do, and that each is idempotent,
// whoever else does it too. All of them return: a removal goes on while it
// progresses, everything else ends within a few times Options.Timeout. When ctx
// ends, what has not begun does not begin, and what has stops between two steps.
// An error matches ErrUntouched if nothing was changed.
type Manager struct {
	options Options
	life    *lifetime
	running sync.WaitGroup // the operations

	mu       sync.Mutex
	closed   bool
	shares   map[string]*shareConn
	limiters map[string]*serverLimiter // of servers, by their canonical name
	siblings map[volume.Share]*sameExport
}

// NewManager returns a Manager that has nothing mounted yet.
func NewManager(options Options) *Manager {
	options = options.withDefaults()
	return &Manager{
		options: options, life: &lifetime{closing: make(chan struct{}), pool: newHelperPool(options.Helpers)},
		shares: map[string]*shareConn{}, limiters: map[string]*serverLimiter{}, siblings: map[volume.Share]*sameExport{},
	}
}

// Serves reports whether share can be worked on at all: any can, unless shares
// are premounted.
func (m *Manager) Serves(share volume.Share) bool {
	_, premounted := m.options.Premounted[share]
	return premounted || len(m.options.Premounted) == 0
}

// States returns how the shares are that were asked for so far, in no order.
func (m *Manager) States() []State {
	m.mu.Lock()
	shares := slices.Collect(maps.Values(m.shares))
	m.mu.Unlock()
	states := make([]State, 0, len(shares))
	for _, s := range shares {
		states = append(states, s.state())
	}
	return states
}

// Do does an operation of package operation on a share and stores its result where
// result points.
func (m *Manager) Do(ctx context.Context, ref Ref, name string, arguments, result any) (err error) {
	defer func(started time.Time) { m.options.Observe(ref.Share, name, err, time.Since(started)) }(time.Now())
	s, err := m.share(ref)
	if err != nil {
		return untouched(err)
	}
	defer m.running.Done()
	ctx, cancel := m.life.bound(ctx)
	defer cancel()
	return s.do(ctx, name, arguments, result)
}

// share returns the access to a share, for one operation of m.running.
func (m *Manager) share(ref Ref) (*shareConn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	path, premounted := m.options.Premounted[ref.Share]
	switch {
	case m.closed:
		return nil, errShuttingDown
	case premounted:
		ref.MountOptions = nil
	case len(m.options.Premounted) > 0:
		var names []string
		for share := range m.options.Premounted {
			names = append(names, share.String())
		}
		slices.Sort(names)
		return nil, fmt.Errorf("%s is not one of the shares that are mounted for the provisioner: %s", ref.Share, strings.Join(names, ", "))
	}
	s, known := m.shares[ref.key()]
	if !known {
		s = m.newShareConn(ref, path)
		m.shares[ref.key()] = s
	}
	m.running.Add(1)
	return s, nil
}

// newShareConn returns a new access to a share. The caller has the lock.
func (m *Manager) newShareConn(ref Ref, premounted string) *shareConn {
	share := ref.Share.Canonical()
	if m.limiters[share.Server] == nil {
		m.limiters[share.Server] = newServerLimiter(m.options.Concurrency)
	}
	if m.siblings[share] == nil {
		m.siblings[share] = &sameExport{}
	}
	return newShareConn(ref, premounted, m.options, m.limiters[share.Server], m.siblings[share], m.life)
}

// stopGrace is how long running operations have to stop between two steps when
// the Manager closes, before their helpers are ended.
const stopGrace = 2 * time.Second

// Close ends all operations and helpers and unmounts all shares, at the same time.
// It returns when ctx ends at the latest. Operations that have not begun are refused
// from then on. When it returns nil, no process, goroutine or mount is left.
func (m *Manager) Close(ctx context.Context) error {
	m.mu.Lock()
	if !m.closed {
		close(m.life.closing)
	}
	m.closed = true
	shares := m.shares
	m.shares = nil
	m.mu.Unlock()

	grace := stopGrace
	if deadline, set := ctx.Deadline(); set {
		grace = min(grace, time.Until(deadline)/4)
	}
	stopped, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	_ = wait(stopped, &m.running) // what runs on ends with its helper

	var closing sync.WaitGroup
	results := make(chan error, len(shares))
	for _, s := range shares {
		closing.Go(func() { results <- s.close(ctx) })
	}
	errs := []error{wait(ctx, &closing), wait(ctx, &m.running), wait(ctx, &m.life.background)}
	for range len(results) {
		errs = append(errs, <-results)
	}
	return errors.Join(errs...)
}

// wait waits for group until ctx ends.
func wait(ctx context.Context, group *sync.WaitGroup) error {
	done := make(chan struct{})
	go func() {
		group.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	select {
	case <-done: // both were ready
		return nil
	default:
		return fmt.Errorf("some operations on shares have not ended: %w", ctx.Err())
	}
}

// lifetime is what the shares of one Manager have in common.
type lifetime struct {
	closing    chan struct{}  // closed when the Manager closes
	background sync.WaitGroup // what the shares do by themselves
	pool       *helperPool    // for their helpers
}

// bound returns a context that ends with ctx, when the Manager closes, and with
// the returned function, which must be called.
func (l *lifetime) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-l.closing:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}
