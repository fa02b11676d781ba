package share

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/klog/v2"

	"sharevol.dev/sharevol/internal/share/dirs"
	"sharevol.dev/sharevol/internal/share/helper"
)

// turnTimeout is longer than mounting, unmounting and starting a helper may take
// together; see nfsmount.Options.
const turnTimeout = 3 * time.Minute

var errShuttingDown = errors.New("shutting down")

// slots has one token for each operation that runs on a share, however it is
// mounted. Creations have their own, so that none waits behind the removal of big
// trees.
type slots struct {
	creations, removals chan struct{}
	moved               atomic.Int64 // when an operation last began or ended, in Unix nanoseconds
}

// stillAfter is how long after the last operation began or ended nobody waits for a
// slot any more: whoever does holds a worker that other shares need, and the server
// may be dead.
const stillAfter = time.Second

func (s *slots) move() { s.moved.Store(time.Now().UnixNano()) }

func (s *slots) still() bool { return time.Since(time.Unix(0, s.moved.Load())) > stillAfter }

func newSlots(concurrency int) *slots {
	return &slots{creations: make(chan struct{}, concurrency), removals: make(chan struct{}, concurrency)}
}

func (s *slots) of(operation string) chan struct{} {
	if operation == "create" || operation == "records" {
		return s.creations
	}
	return s.removals
}

// access is the way to one share: its mount, its helper, and whether it works.
type access struct {
	ref     Ref
	path    string // where the share root shows
	mounts  bool   // whether it is ours to mount there
	options Options
	slots   *slots
	life    *lifetime

	// turn (a channel of one, so that waiting for it can end) is held by whoever
	// mounts or unmounts the share or starts a helper. It guards mounted.
	turn    chan struct{}
	mounted bool

	mu     sync.Mutex // guards the rest; never held while anything can block
	closed bool
	helper Helper // the one that does the work; nil if there is none
	// old is the one before, which must be gone before another is started; nil if
	// it is. There is only ever one of the two.
	old    Helper
	latest Helper    // the last one that was taken into use
	active int       // operations on helper or old
	used   time.Time // when the last of them ended
	// down is why the share is set aside, nil if it is not. since says since when.
	down    error
	since   time.Time
	probing bool      // whether a goroutine tries to bring it back
	asked   time.Time // when an operation was last asked for
}

func newAccess(ref Ref, premounted string, options Options, slots *slots, life *lifetime) *access {
	s := &access{
		ref: ref, path: premounted, mounts: premounted == "", options: options, slots: slots, life: life,
		turn: make(chan struct{}, 1), since: time.Now(),
	}
	if s.mounts {
		name := sha256.Sum256([]byte(ref.key()))
		s.path = filepath.Join(options.Dir, hex.EncodeToString(name[:8]))
	}
	return s
}

func (s *access) state() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := State{Share: s.ref.Share, MountOptions: s.ref.MountOptions, Up: s.down == nil, Since: s.since}
	if s.helper != nil {
		state.PID = s.helper.PID()
	}
	return state
}

// do has the helper do work in one of slots, and makes the share ready for it if
// it must. When the server does not answer, the share is set aside.
func (s *access) do(ctx context.Context, slots chan struct{}, work func(context.Context, Helper) error) error {
	if err := s.enter(ctx, slots); err != nil {
		return untouched(err)
	}
	s.slots.move()
	defer func() {
		s.slots.move()
		<-slots
	}()
	h, err := s.begin(ctx)
	if err != nil {
		return untouched(err)
	}
	err = work(ctx, h)
	return s.end(h, err)
}

// enter takes a slot. On a share that works it waits for one for a moment; on one
// that is set aside, or on which nothing moves, it does not, so that the callers are
// free for other shares.
func (s *access) enter(ctx context.Context, slots chan struct{}) error {
	for deadline := time.Now().Add(s.options.Patience); ; {
		if err := s.refusal(); err != nil {
			return err
		}
		select {
		case slots <- struct{}{}:
			return nil
		default:
		}
		wait := min(time.Until(deadline), 100*time.Millisecond)
		if wait <= 0 || s.slots.still() {
			return fmt.Errorf("%w: %s has %d operations under way", ErrBusy, s.ref.Share, cap(slots))
		}
		select {
		case slots <- struct{}{}:
			return nil
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// refusal returns why no operation can begin now, if there is a reason.
func (s *access) refusal() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = time.Now()
	switch {
	case s.closed:
		return errShuttingDown
	case s.down == nil:
		return nil
	}
	s.probe(0) // if nobody had asked for the share for long
	return fmt.Errorf("the share is set aside since %s and tried again every now and then: %w", s.since.UTC().Format(time.RFC3339), s.down)
}

// begin returns the helper for one operation, which ends with end. It starts one
// if there is none.
func (s *access) begin(ctx context.Context) (Helper, error) {
	if h, err := s.use(); h != nil || err != nil {
		return h, err
	}
	if err := s.takeTurn(ctx); err != nil {
		return nil, err
	}
	defer s.giveTurn()
	// While it waited, another may have done it, or failed.
	if h, err := s.use(); h != nil || err != nil {
		return h, err
	}
	h, err := s.reach(ctx, false)
	switch {
	case err == nil:
		s.mu.Lock()
		defer s.mu.Unlock()
		if err := s.adopt(h); err != nil {
			return nil, err
		}
		s.active++
		return h, nil
	case ctx.Err() != nil && !errors.Is(err, ErrNoAnswer):
	case errors.Is(err, errNoHelper), errors.Is(err, helper.ErrGone), errors.Is(err, dirs.ErrLease):
		// These, too, say nothing about the share.
	default:
		s.setAside(nil, err)
	}
	return nil, err
}

// use returns the helper, counted as in use, or nil if there is none.
func (s *access) use() (Helper, error) {
	if err := s.refusal(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.helper == nil {
		return nil, nil
	}
	select {
	case <-s.helper.Done():
		s.old, s.helper = s.helper, nil
		return nil, nil
	default:
	}
	s.active++
	return s.helper, nil
}

// end ends an operation of h and returns its error, with the share's name.
func (s *access) end(h Helper, err error) error {
	s.mu.Lock()
	s.active--
	s.used = time.Now()
	s.mu.Unlock()
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%s: %w", s.ref.Share, err)
	switch {
	case errors.Is(err, ErrNoAnswer):
		s.setAside(h, err)
	case errors.Is(err, helper.ErrGone), errors.Is(err, helper.ErrStale):
		// nfs-subdir #214: the next operation starts anew, on a new mount if it must.
		s.discard(h)
	}
	return err
}

// adopt makes h the helper that does the work: the share is up. The caller has the lock.
func (s *access) adopt(h Helper) error {
	if s.closed {
		s.old = h // Close waits for its turn to end it
		return errShuttingDown
	}
	s.helper, s.latest, s.used = h, h, time.Now()
	if s.down != nil {
		klog.InfoS("Share works again", "share", s.ref.Share.String(), "after", time.Since(s.since).Round(time.Second))
		s.down, s.since = nil, time.Now()
	}
	s.life.background.Go(func() { s.endWhenIdle(h) })
	return nil
}

// takeTurn waits for the turn, which only holders of slots, the probe and Close
// wait for.
func (s *access) takeTurn(ctx context.Context) error {
	timer := time.NewTimer(turnTimeout)
	defer timer.Stop()
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-timer.C:
		return fmt.Errorf("%s is being mounted or unmounted", s.ref.Share)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *access) giveTurn() { <-s.turn }
