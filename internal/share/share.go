// Package share is the provisioner's side of NFS shares: it mounts a share on
// first use and keeps it, and it is the only code that creates and removes
// directories on one. Everything below the share root is reached by descriptor,
// so that no link leads out of it.
package share

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"sharevol.dev/sharevol/internal/volume"
)

var (
	// ErrUntouched says that the operation ended before it changed anything on the share.
	ErrUntouched = errors.New("nothing was changed on the share")
	// ErrNoAnswer says that the server did not answer in time. What was asked may
	// still take effect.
	ErrNoAnswer = errors.New("the NFS server does not answer")
)

// Ref says which share to work on and how to mount it. The same share under
// other mount options is another mount.
type Ref struct {
	Share        volume.Share
	MountOptions []string
}

func (r Ref) key() string {
	return r.Share.String() + "\x00" + strings.Join(r.MountOptions, ",")
}

// Mounter mounts shares; see nfsmount.Mounter for what is promised.
type Mounter interface {
	Mount(ctx context.Context, source, target string, options []string) error
	Unmount(ctx context.Context, target string) error
	// Open opens what Mount mounted, and nothing else that may show on target.
	Open(target string) (*os.File, error)
}

// Options of a Manager. All fields but the Mounter have a default.
type Options struct {
	Mounter Mounter
	// Dir is a local directory of our own, below which shares are mounted.
	// /run/sharevol when empty.
	Dir string
	// Timeout bounds one file operation, and in a long removal the time between
	// two steps. 30 s when zero.
	Timeout time.Duration
	// Concurrency is how many creations, and how many removals, one share does at a
	// time, 8 when zero.
	Concurrency int
	// Patience is how long an operation waits for its turn on a share that works,
	// 5 s when zero. On one that does not it waits for nothing.
	Patience time.Duration
	// MountRetry is how long a share that could not be mounted is left alone, 10 s when zero.
	MountRetry time.Duration
}

// Manager keeps the mounts and does the directory work. Its methods may be called
// concurrently, in this process and in others: each is idempotent and leaves the
// same end state whoever else does it too.
type Manager struct {
	options Options

	mu     sync.Mutex
	closed bool
	shares map[string]*mounted
}

// NewManager returns a Manager that has nothing mounted yet.
func NewManager(options Options) *Manager {
	if options.Dir == "" {
		options.Dir = "/run/sharevol"
	}
	if options.Timeout == 0 {
		options.Timeout = 30 * time.Second
	}
	if options.Concurrency == 0 {
		options.Concurrency = 8
	}
	if options.Patience == 0 {
		options.Patience = 5 * time.Second
	}
	if options.MountRetry == 0 {
		options.MountRetry = 10 * time.Second
	}
	return &Manager{options: options, shares: map[string]*mounted{}}
}

// Create makes the volume directory dir with exactly the given mode (permission
// bits, no umask). A directory that is there already is success and keeps the mode
// that it has by now, unless a crash of ours left it unfinished. The error matches
// ErrUntouched if nothing can have been made. When ctx ends, what has not begun on
// the share does not begin, and what has is finished.
func (m *Manager) Create(ctx context.Context, ref Ref, dir volume.SubDir, mode uint32) error {
	s, err := m.share(ref, dir)
	if err != nil {
		return err
	}
	return s.do(ctx, s.creations, func(_ context.Context, root int, _ func()) error {
		return createDir(root, string(dir), mode)
	})
}

// Remove removes the volume directory dir with all that is in it. A missing one
// is success. It has no deadline as a whole, goes on while it progresses, stops
// between two files when ctx ends, and a repeated call goes on where it stopped.
func (m *Manager) Remove(ctx context.Context, ref Ref, dir volume.SubDir) error {
	s, err := m.share(ref, dir)
	if err != nil {
		return err
	}
	return s.do(ctx, s.removals, func(ctx context.Context, root int, progress func()) error {
		return removeDir(ctx, root, string(dir), progress)
	})
}

// Close unmounts all shares, at the same time and until ctx ends. Operations that
// have not begun are refused from then on.
func (m *Manager) Close(ctx context.Context) error {
	m.mu.Lock()
	m.closed = true
	shares := m.shares
	m.shares = nil
	m.mu.Unlock()

	results := make(chan error, len(shares))
	for _, s := range shares {
		go func() { results <- s.close(ctx) }()
	}
	var errs []error
	for range shares {
		errs = append(errs, <-results)
	}
	return errors.Join(errs...)
}

// share returns the share on which dir is to be worked on.
func (m *Manager) share(ref Ref, dir volume.SubDir) (*mounted, error) {
	// The last check before a name reaches the file system, whoever called.
	if _, err := volume.ParseSubDir(string(dir)); err != nil || strings.Contains(string(dir), "/") {
		return nil, fmt.Errorf("%w: volume directory %q is not one directory below the share root", ErrUntouched, dir)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, fmt.Errorf("%w: shutting down", ErrUntouched)
	}
	s, known := m.shares[ref.key()]
	if !known {
		s = newMounted(ref, m.options)
		m.shares[ref.key()] = s
	}
	return s, nil
}
