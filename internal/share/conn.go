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

// mountLockTimeout is longer than mounting, unmounting and starting a helper may take
// together; see mount.Options.
const mountLockTimeout = 3 * time.Minute

var errShuttingDown = errors.New("shutting down")

// shareConn is the way to one share: its mount, its helper, and whether it works.
type shareConn struct {
	ref      Ref
	path     string // where the share root shows
	mounts   bool   // whether it is ours to mount there
	options  Options
	limiter  *serverLimiter
	siblings *sameExport // with other mount options
	life     *lifetime

	// mountLock (a channel of one, so that waiting for it can end) is held by whoever
	// mounts or unmounts the share or starts a helper. It guards the next two.
	mountLock chan struct{}
	mounted   bool
	tried     bool // whether something may be mounted at path: a mount was begun

	mu     sync.Mutex // guards the rest; never held while anything can block
	closed bool
	helper Helper // the one that does the work; nil if there is none
	// exiting is the helper before, which must be gone before another is started; nil if
	// it is. There is only ever one of the two.
	exiting Helper
	latest  Helper    // the last one that was taken into use
	active  int       // operations on either
	used    time.Time // when the last of them ended
	// down is why the share is unavailable, nil if it is not. since says since when.
	down    error
	since   time.Time
	probing bool      // whether a goroutine tries to recover it
	asked   time.Time // when an operation was last asked for
}

func newShareConn(ref Ref, premounted string, options Options, limiter *serverLimiter, siblings *sameExport, life *lifetime) *shareConn {
	s := &shareConn{
		ref: ref, path: premounted, mounts: premounted == "", options: options, limiter: limiter, siblings: siblings, life: life,
		mountLock: make(chan struct{}, 1), since: time.Now(),
	}
	siblings.add(s)
	if s.mounts {
		name := sha256.Sum256([]byte(ref.key()))
		s.path = filepath.Join(options.Dir, hex.EncodeToString(name[:8]))
	}
	return s
}

func (s *shareConn) state() State {
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
// is unavailable.
func (s *shareConn) do(ctx context.Context, name string, arguments, result any) error {
	kind := operation.KindOf(name)
	queue := s.limiter.of(kind)
	if err := s.enter(ctx, queue); err != nil {
		return untouched(err)
	}
	defer queue.leave()
	h, err := s.begin(ctx)
	if err != nil {
		return untouched(err)
	}
	began := time.Now()
	err = h.Do(ctx, name, arguments, result)
	// A server that does not answer is not slow.
	if !kind.Has(operation.Long) && !errors.Is(err, ErrNoAnswer) {
		queue.observe(time.Since(began))
	}
	return s.end(h, err)
}

// checkAvailable returns why no operation can begin now, if there is a reason.
func (s *shareConn) checkAvailable() error {
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
	return fmt.Errorf("%w since %s, and sharevol tries it again by itself: %w", ErrUnavailable, s.since.UTC().Format(time.RFC3339), s.down)
}

// begin returns the helper for one operation, which ends with end. It starts one
// if there is none.
func (s *shareConn) begin(ctx context.Context) (Helper, error) {
	if h, err := s.use(); h != nil || err != nil {
		return h, err
	}
	if err := s.lockMount(ctx); err != nil {
		return nil, err
	}
	defer s.unlockMount()
	defer s.life.pool.release(s)
	// While it waited, another may have done it, or failed.
	if h, err := s.use(); h != nil || err != nil {
		return h, err
	}
	h, err := s.connect(ctx, false)
	switch {
	case err == nil:
		s.mu.Lock()
		defer s.mu.Unlock()
		if err := s.install(h); err != nil {
			return nil, err
		}
		s.active++
		return h, nil
	case ctx.Err() != nil && !errors.Is(err, ErrNoAnswer):
	case errors.Is(err, ErrBusy), errors.Is(err, errNoHelper), errors.Is(err, helper.ErrGone), errors.Is(err, dirs.ErrFenced):
		// These, too, say nothing about the share.
	default:
		s.markUnavailable(nil, err)
	}
	return nil, err
}

// use returns the helper, counted as in use, or nil if there is none.
func (s *shareConn) use() (Helper, error) {
	if err := s.checkAvailable(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.helper == nil {
		return nil, nil
	}
	select {
	case <-s.helper.Done():
		s.exiting, s.helper = s.helper, nil
		return nil, nil
	default:
	}
	s.active++
	return s.helper, nil
}

// end ends an operation of h and returns its error, with the share's name.
func (s *shareConn) end(h Helper, err error) error {
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
		s.markUnavailable(h, err)
	case errors.Is(err, helper.ErrGone), errors.Is(err, helper.ErrStale):
		// nfs-subdir #214: the next operation starts anew, on a new mount if it must.
		s.discard(h)
	}
	return err
}

// install makes h the helper that does the work: the share is up. The caller has the lock.
func (s *shareConn) install(h Helper) error {
	if s.closed {
		s.exiting = h // Close waits for mountLock to end it
		return errShuttingDown
	}
	s.helper, s.latest, s.used = h, h, time.Now()
	if s.down != nil {
		klog.InfoS("Share available again", "share", s.ref.Share.String(), "after", time.Since(s.since).Round(time.Second))
		s.down, s.since = nil, time.Now()
	}
	s.life.background.Go(func() { s.endWhenIdle(h) })
	return nil
}

// lockMount waits for mountLock, which only holders of slots, the probe and Close
// wait for.
func (s *shareConn) lockMount(ctx context.Context) error {
	timer := time.NewTimer(mountLockTimeout)
	defer timer.Stop()
	select {
	case s.mountLock <- struct{}{}:
		return nil
	case <-timer.C:
		return fmt.Errorf("%s is being mounted or unmounted", s.ref.Share)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *shareConn) unlockMount() { <-s.mountLock }
