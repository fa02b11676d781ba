package share

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"sharevol.dev/sharevol/internal/share/dirs"
	"sharevol.dev/sharevol/internal/share/helper"
	"sharevol.dev/sharevol/internal/share/operation"
)

// turnTimeout is longer than mounting, unmounting and starting a helper may take
// together; see mount.Options.
const turnTimeout = 3 * time.Minute

var errShuttingDown = errors.New("shutting down")

// access is the way to one share: its mount, its helper, and whether it works.
type access struct {
	ref     Ref
	path    string // where the share root shows
	mounts  bool   // whether it is ours to mount there
	options Options
	slots   *slots // the server's
	kin     *kin
	life    *lifetime

	// turn (a channel of one, so that waiting for it can end) is held by whoever
	// mounts or unmounts the share or starts a helper. It guards the next two.
	turn    chan struct{}
	mounted bool
	tried   bool // whether something may be mounted at path: a mount was begun

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

func newAccess(ref Ref, premounted string, options Options, slots *slots, kin *kin, life *lifetime) *access {
	s := &access{
		ref: ref, path: premounted, mounts: premounted == "", options: options, slots: slots, kin: kin, life: life,
		turn: make(chan struct{}, 1), since: time.Now(),
	}
	kin.add(s)
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

// do has the helper do an operation, in one of the server's slots for such operations, and
// makes the share ready for it if it must. When the server does not answer, the share
// is set aside.
func (s *access) do(ctx context.Context, name string, arguments, result any) error {
	kind := operation.KindOf(name)
	lane := s.slots.of(kind)
	if err := s.enter(ctx, lane); err != nil {
		return untouched(err)
	}
	defer lane.leave()
	h, err := s.begin(ctx)
	if err != nil {
		return untouched(err)
	}
	began := time.Now()
	err = h.Do(ctx, name, arguments, result)
	// A server that does not answer is not slow.
	if !kind.Has(operation.Long) && !errors.Is(err, ErrNoAnswer) {
		lane.took(time.Since(began))
	}
	return s.end(h, err)
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
	return fmt.Errorf("%w since %s and tried again every now and then: %w", ErrSetAside, s.since.UTC().Format(time.RFC3339), s.down)
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
	defer s.life.places.settle(s)
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
	case errors.Is(err, ErrBusy), errors.Is(err, errNoHelper), errors.Is(err, helper.ErrGone), errors.Is(err, dirs.ErrLease):
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
