package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/klog/v2"

	"sharevol.dev/sharevol/internal/nfsmount"
)

// replace puts a new mount in the place of a stale one, whose directory or export the
// server has forgotten, as soon as a new mount can be had, and if it is stale still.
// Containers that run keep the old one until they are restarted.
func (s *Server) replace(ctx context.Context, p publish, layers []nfsmount.Layer) error {
	if n := len(layers); n > 1 {
		return status.Errorf(codes.Unavailable, "the mount of %s on %s is stale, and left alone because there is another one, of %s, below it", p.source, p.target, layers[n-2].Source)
	}
	if err := s.trials.mount(ctx, p); err != nil {
		return status.Errorf(codes.Unavailable, "the mount of %s on %s is stale, and left alone because it can't be mounted anew: %s", p.source, p.target, oneLine(err))
	}
	// A server that has just started, or loads its exports, may have meant only a moment.
	switch _, err := s.prober.ask(ctx, layers[0].Device, p.target); {
	case lives(err):
		return nil
	case !errors.Is(err, unix.ESTALE):
		return retryable(fmt.Errorf("%s is mounted on %s, and its server does not answer as it should; the mount is left alone: %w", p.source, p.target, err))
	}
	klog.FromContext(ctx).Info("Replacing a stale mount", "source", p.source)
	if err := s.mounter.Unmount(ctx, p.target); err != nil {
		return retryable(err)
	}
	s.prober.forget(p.target)
	return s.mount(ctx, p)
}

// trialPrefix begins the names of the folders that trial mounts are made in.
const trialPrefix = "trial-"

// trials are mounts that only show that something can be mounted.
type trials struct {
	dir     string
	prefix  string // of this process's folders
	mounter Mounter
}

// mount returns nil if a volume can be mounted, and leaves nothing.
func (t trials) mount(ctx context.Context, p publish) (err error) {
	// A parent of its own: see nfsmount.Options.Exclusive.
	parent, err := os.MkdirTemp(t.dir, t.prefix)
	if err != nil {
		return err
	}
	target := filepath.Join(parent, "mount")
	defer func() { err = errors.Join(err, removeDir(target), removeDir(parent)) }()
	if err := os.Mkdir(target, 0o700); err != nil {
		return err
	}
	mounting, cancel := context.WithTimeout(ctx, trialTimeout)
	defer cancel()
	if err := t.mounter.Mount(mounting, p.source, target, p.options); err != nil {
		return err
	}
	undoing, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	return t.mounter.Unmount(undoing, target)
}

// tidy takes away what trials of processes that were killed have left.
func (t trials) tidy(ctx context.Context) error {
	dir := t.dir
	if dir == "" {
		dir = os.TempDir()
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var errs []error
	for _, entry := range entries {
		name := entry.Name()
		if !entry.IsDir() || !strings.HasPrefix(name, trialPrefix) || strings.HasPrefix(name, t.prefix) {
			continue
		}
		parent := filepath.Join(dir, name)
		target := filepath.Join(parent, "mount")
		err := t.mounter.Unmount(ctx, target)
		if err == nil {
			err = errors.Join(removeDir(target), removeDir(parent))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("tidy %s: %w", parent, err))
		}
	}
	return errors.Join(errs...)
}

// removeDir removes an empty directory that is no mount point, and nothing else.
func removeDir(path string) error {
	if err := unix.Rmdir(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}

// Tidy takes away what an earlier process, killed in the middle of replacing a stale
// mount, may have left. It may run beside calls; what it can't take away is left to
// the next start.
func (s *Server) Tidy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, unpublishTimeout)
	defer cancel()
	return s.trials.tidy(ctx)
}
