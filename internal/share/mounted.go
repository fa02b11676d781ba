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

	slots   chan struct{} // one token for each operation that runs
	stalled atomic.Int32  // how many of those have outlived their deadline

	// lock (a channel of one, so that waiting for it can end) guards the rest.
	lock     chan struct{}
	mounted  bool
	root     *os.File // opened by the first operation after mounting
	failedAt time.Time
	failure  error
}

func newMounted(ref Ref, options Options) *mounted {
	name := sha256.Sum256([]byte(ref.key()))
	return &mounted{
		ref:     ref,
		target:  filepath.Join(options.Dir, hex.EncodeToString(name[:8])),
		options: options,
		slots:   make(chan struct{}, options.Concurrency),
		lock:    make(chan struct{}, 1),
	}
}

// do runs op, mounting the share first if it must. It returns when op does or
// when op makes no progress for Options.Timeout. A stalled op can't be stopped: it
// keeps its slot until the kernel lets it go, and until then the share is set
// aside: others fail at once instead of queueing up behind it.
func (s *mounted) do(ctx context.Context, op operation) error {
	if s.stalled.Load() > 0 {
		return s.setAside()
	}
	if err := s.acquire(ctx, s.slots); err != nil {
		return err
	}
	if err := s.mount(ctx); err != nil {
		<-s.slots
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
			<-s.slots
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
			<-s.slots
		}()
		return fmt.Errorf("%w: %s has not answered for %v", ErrNoAnswer, s.ref.Share, s.options.Timeout)
	}
}

// acquire puts a token into one of the share's channels, within twice
// Options.Timeout: by then whoever holds one is either done or stalled.
func (s *mounted) acquire(ctx context.Context, tokens chan struct{}) error {
	wait := time.NewTimer(2 * s.options.Timeout)
	defer wait.Stop()
	select {
	case tokens <- struct{}{}:
		return nil
	case <-wait.C:
		return fmt.Errorf("%w: %s is busy with other operations", ErrUntouched, s.ref.Share)
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUntouched, ctx.Err())
	}
}

func (s *mounted) setAside() error {
	return fmt.Errorf("%w: %w: %s is set aside until its unanswered operations end", ErrUntouched, ErrNoAnswer, s.ref.Share)
}

func (s *mounted) run(ctx context.Context, op operation, progress func()) error {
	root, err := s.openRoot(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(root) }()
	err = op(ctx, root, progress)
	if errors.Is(err, unix.ESTALE) {
		// The server has forgotten what the root was: the next operation mounts anew.
		if unmountErr := s.unmount(ctx); unmountErr != nil {
			return fmt.Errorf("%w; and it can't be unmounted: %v", err, unmountErr)
		}
	}
	return err
}

// openRoot returns a descriptor of the share root for one operation, which stays
// good when another one remounts the share.
func (s *mounted) openRoot(ctx context.Context) (int, error) {
	if err := s.acquire(ctx, s.lock); err != nil {
		return 0, err
	}
	defer func() { <-s.lock }()
	if !s.mounted {
		// Unmounted since: what is at target now is a local directory, not the share.
		return 0, fmt.Errorf("%w: %s was unmounted meanwhile", ErrUntouched, s.ref.Share)
	}
	if s.root == nil {
		root, err := os.OpenFile(s.target, os.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return 0, fmt.Errorf("%w: %w", ErrUntouched, err)
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
	if err := s.acquire(ctx, s.lock); err != nil {
		return err
	}
	defer func() { <-s.lock }()
	if s.mounted {
		return nil
	}
	if s.failure != nil && time.Since(s.failedAt) < s.options.MountRetry {
		return s.failure
	}
	if err := s.mountNow(ctx); err != nil {
		s.failure = fmt.Errorf("%w: %w", ErrUntouched, err)
		s.failedAt = time.Now()
		return s.failure
	}
	s.mounted, s.failure = true, nil
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
	if err := s.acquire(ctx, s.lock); err != nil {
		return err
	}
	defer func() { <-s.lock }()
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
