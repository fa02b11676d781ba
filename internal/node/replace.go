package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/klog/v2"

	"sharevol.dev/sharevol/internal/mount"
)

// replace mounts a volume anew whose mount is stale: its server no longer knows the
// directory. The stale mount stays until a trial has shown that a new one can be had, and
// it is stale still. Running containers keep the old mount until they are restarted.
func (s *Server) replace(ctx context.Context, p publish, layers []mount.Layer) error {
	if n := len(layers); n > 1 {
		return status.Errorf(codes.Unavailable, "the mount of %s on %s is stale, and kept because %s is mounted below it", p.spec.Source, p.target, layers[n-2].Source)
	}
	if err := s.trials.try(ctx, p.spec); err != nil {
		return status.Errorf(codes.Unavailable, "the mount of %s on %s is stale, and kept because a new mount failed: %s", p.spec.Source, p.target, oneLine(err))
	}
	// A server that has just started, or loads its exports, may answer so for a moment only.
	switch _, err := s.prober.ask(ctx, layers[0].Device, p.target); {
	case responds(err):
		return nil
	case !errors.Is(err, p.stale):
		return p.notResponding(err)
	}
	klog.FromContext(ctx).Info("Replacing a stale mount", "source", p.spec.Source)
	if err := s.mounter.Unmount(ctx, p.target); err != nil {
		return retryable(err)
	}
	s.prober.forget(p.target)
	return s.mount(ctx, p)
}

// trialPrefix begins the names of the directories that trial mounts are made in.
const trialPrefix = "trial-"

// trialMounts are made only to see whether something can be mounted.
type trialMounts struct {
	dir     string
	prefix  string // of this process's directories
	mounter Mounter
}

// try returns nil if spec can be mounted, and leaves nothing behind.
func (t trialMounts) try(ctx context.Context, spec mount.Spec) (err error) {
	// A parent of its own: see mount.Options.Exclusive.
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
	if err := t.mounter.Mount(mounting, spec, target); err != nil {
		return err
	}
	undoing, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	return t.mounter.Unmount(undoing, target)
}

// tidy unmounts and removes what trials of killed processes have left.
func (t trialMounts) tidy(ctx context.Context) error {
	dir := t.dir
	if dir == "" {
		dir = os.TempDir()
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
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
			errs = append(errs, fmt.Errorf("clean up the trial mount %s: %w", target, err))
		}
	}
	return errors.Join(errs...)
}

// removeDir removes an empty directory that is not a mount point, and nothing else.
func removeDir(path string) error {
	if err := unix.Rmdir(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}

// Tidy removes what an earlier process, killed in the middle of replacing a stale
// mount, may have left. It may run beside calls; what it can't remove is left to
// the next start.
func (s *Server) Tidy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, unpublishTimeout)
	defer cancel()
	return s.trials.tidy(ctx)
}
