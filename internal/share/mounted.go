package share

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// ownMountOptions are added to a class's mount options for the provisioner's own
// mount: it runs nothing from a share, and soft lets calls to a dead server fail
// in the end. Writing file data softly would be unsafe; the provisioner writes none.
var ownMountOptions = []string{"nosuid", "nodev", "noexec", "soft", "timeo=100", "retrans=2"}

// lockTimeout is longer than mounting and unmounting may take; see nfsmount.Options.
const lockTimeout = 3 * time.Minute

// operation works below root, a descriptor of the share root. It calls progress
// after each step of a long work and returns soon after ctx ends.
type operation func(ctx context.Context, root int, progress func()) error

// mounted is one share. Its mount is made on first use; the descriptor of its
// root is what all operations start from, so that they can't end up in the
// directory underneath if somebody unmounts the share.
type mounted struct {
	ref     Ref
	target  string
	options Options

	// One token for each operation that runs. Creations have their own, so that
	// none waits behind the removal of big trees.
	creations, removals chan struct{}
	stalled             atomic.Int32 // how many operations have outlived their deadline

	// lock (a channel of one, so that waiting for it can end) guards the rest.
	lock     chan struct{}
	closed   bool // for good
	mounted  bool
	root     *os.File // opened by the first operation after mounting
	failedAt time.Time

	failure atomic.Pointer[error] // of the last mount; read without the lock
}

func newMounted(ref Ref, options Options) *mounted {
	name := sha256.Sum256([]byte(ref.key()))
	return &mounted{
		ref:       ref,
		target:    filepath.Join(options.Dir, hex.EncodeToString(name[:8])),
		options:   options,
		creations: make(chan struct{}, options.Concurrency),
		removals:  make(chan struct{}, options.Concurrency),
		lock:      make(chan struct{}, 1),
	}
}

// do runs op in one of slots, mounting the share first if it must. It returns when
// op does or when op makes no progress for Options.Timeout. A stalled op can't be
// stopped: it keeps its slot until the kernel lets it go, and until then the share
// is set aside: others fail at once instead of queueing up behind it.
func (s *mounted) do(ctx context.Context, slots chan struct{}, op operation) error {
	if err := s.enter(ctx, slots); err != nil {
		return err
	}
	if err := s.mount(ctx); err != nil {
		<-slots
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var steps atomic.Int64
	done := make(chan error, 1)
	go func() { done <- s.run(ctx, op, func() { steps.Add(1) }) }()

	ticker := time.NewTicker(s.options.Timeout)
	defer ticker.Stop()
	for seen := int64(0); ; {
		select {
		case err := <-done:
			<-slots
			return err
		case <-ticker.C:
		}
		if now := steps.Load(); now != seen {
			seen = now
			continue
		}
		s.stalled.Add(1)
		go func() {
			<-done
			s.stalled.Add(-1)
			<-slots
		}()
		return fmt.Errorf("%w: %s has not answered for %v", ErrNoAnswer, s.ref.Share, s.options.Timeout)
	}
}

// enter takes a slot. On a share that works it waits for one for a moment; on one
// that is stalled or can't be mounted it does not, so that the callers are free for
// other shares.
func (s *mounted) enter(ctx context.Context, slots chan struct{}) error {
	deadline := time.Now().Add(s.options.Patience)
	for {
		if s.stalled.Load() > 0 {
			return fmt.Errorf("%w: %w: %s is set aside until its unanswered operations end", ErrUntouched, ErrNoAnswer, s.ref.Share)
		}
		select {
		case slots <- struct{}{}:
			return nil
		default:
		}
		if failure := s.failure.Load(); failure != nil {
			return *failure
		}
		wait := min(time.Until(deadline), 100*time.Millisecond)
		if wait <= 0 {
			return fmt.Errorf("%w: %s is busy with %d other operations", ErrUntouched, s.ref.Share, cap(slots))
		}
		select {
		case slots <- struct{}{}:
			return nil
		case <-time.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrUntouched, ctx.Err())
		}
	}
}

// acquire takes the lock, for which only the holders of slots and Close wait.
func (s *mounted) acquire(ctx context.Context) error {
	// By then whoever holds it has mounted, unmounted or failed, or is stalled.
	wait := time.NewTimer(lockTimeout)
	defer wait.Stop()
	select {
	case s.lock <- struct{}{}:
		return nil
	case <-wait.C:
		return fmt.Errorf("%w: %s is being mounted or unmounted", ErrUntouched, s.ref.Share)
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUntouched, ctx.Err())
	}
}

func (s *mounted) release() { <-s.lock }

func (s *mounted) run(ctx context.Context, op operation, progress func()) error {
	root, err := s.openRoot(ctx)
	if err != nil {
		return err
	}
	err = op(ctx, root, progress)
	stale := errors.Is(err, unix.ESTALE) && errors.Is(unix.Fstat(root, &unix.Stat_t{}), unix.ESTALE)
	// Before unmounting, which an open root makes busy.
	_ = unix.Close(root)
	if stale {
		// The server has forgotten the root itself: the next operation mounts anew.
		if unmountErr := s.unmount(ctx); unmountErr != nil {
			return fmt.Errorf("%w; and it can't be unmounted: %v", err, unmountErr)
		}
	}
	return err
}

// openRoot returns a descriptor of the share root for one operation, which stays
// good when another one remounts the share. All its errors match ErrUntouched.
func (s *mounted) openRoot(ctx context.Context) (int, error) {
	if err := s.acquire(ctx); err != nil {
		return 0, err
	}
	defer s.release()
	if !s.mounted {
		// Unmounted since: what is at target now is a local directory, not the share.
		return 0, fmt.Errorf("%w: %s was unmounted meanwhile", ErrUntouched, s.ref.Share)
	}
	if s.root == nil {
		root, err := s.options.Mounter.Open(s.target)
		if err != nil {
			// Whatever it is that shows there: the next operation mounts anew.
			err = errors.Join(err, s.unmountLocked(ctx))
			return 0, fmt.Errorf("%w: open %s: %w", ErrUntouched, s.ref.Share, err)
		}
		s.root = root
	}
	fd, err := unix.FcntlInt(s.root.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrUntouched, err)
	}
	return fd, nil
}

// mount mounts the share if it is not. All its errors match ErrUntouched. After a
// failure it fails at once for Options.MountRetry, so that a burst of claims does
// not wait for one dead server again and again.
func (s *mounted) mount(ctx context.Context) error {
	if err := s.acquire(ctx); err != nil {
		return err
	}
	defer s.release()
	switch failure := s.failure.Load(); {
	case s.closed:
		return fmt.Errorf("%w: shutting down", ErrUntouched)
	case s.mounted:
		return nil
	case failure != nil && time.Since(s.failedAt) < s.options.MountRetry:
		return *failure
	}
	if err := s.mountNow(ctx); err != nil {
		err = fmt.Errorf("%w: %w", ErrUntouched, err)
		if ctx.Err() == nil { // else it says nothing about the share
			s.failedAt = time.Now()
			s.failure.Store(&err)
		}
		return err
	}
	s.mounted = true
	s.failure.Store(nil)
	return nil
}

func (s *mounted) mountNow(ctx context.Context) error {
	if err := os.MkdirAll(s.target, 0o700); err != nil {
		return err
	}
	// A run of ours that was killed may have left its mount, with whatever options.
	if err := s.options.Mounter.Unmount(ctx, s.target); err != nil {
		return err
	}
	options := append(append([]string(nil), s.ref.MountOptions...), ownMountOptions...)
	return s.options.Mounter.Mount(ctx, s.ref.Share.String(), s.target, options)
}

// unmount takes the share's mount away, if there is one. The next operation
// makes a new one.
func (s *mounted) unmount(ctx context.Context) error {
	if err := s.acquire(ctx); err != nil {
		return err
	}
	defer s.release()
	return s.unmountLocked(ctx)
}

// close unmounts the share and lets nothing mount it again.
func (s *mounted) close(ctx context.Context) error {
	if err := s.acquire(ctx); err != nil {
		return err
	}
	defer s.release()
	s.closed = true
	return s.unmountLocked(ctx)
}

// unmountLocked is unmount for a holder of the lock.
func (s *mounted) unmountLocked(ctx context.Context) error {
	if !s.mounted {
		return nil
	}
	s.mounted = false
	if s.root != nil {
		// An open root makes unmounting busy. A directory has nothing to lose on close.
		_ = s.root.Close()
		s.root = nil
	}
	if err := s.options.Mounter.Unmount(ctx, s.target); err != nil {
		return err
	}
	return os.Remove(s.target)
}
