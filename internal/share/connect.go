package share

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"sharevol.dev/sharevol/internal/fs"
	"sharevol.dev/sharevol/internal/share/helper"
)

// ownMountOptions are added to a class's mount options for the provisioner's own
// mount, which runs nothing from a share. Those of the share's type follow.
var ownMountOptions = []string{"nosuid", "nodev", "noexec"}

// readOnly is added for Options.ReadOnly. The kernel gives such a mount a superblock of
// its own, so that it takes nothing from other mounts of the export.
const readOnly = "ro"

// errNoHelper says that no process could be started.
var errNoHelper = errors.New("no helper process for the share")

// connect returns a new helper, whose share has answered it. It mounts the share if
// it is not, and once more if what is mounted does not do: the server may have
// another address by now, or have forgotten the root (nfs-subdir #214). On a share
// that does not answer this takes minutes; only those who are patient get it all.
// The caller has mountLock.
func (s *shareConn) connect(ctx context.Context, patient bool) (Helper, error) {
	if err := s.siblings.waitExit(ctx); err != nil {
		return nil, err
	}
	if !s.mounts || s.mounted {
		h, err := s.start(ctx, patient)
		ours := errors.Is(err, ErrBusy) || errors.Is(err, errNoHelper) || errors.Is(err, helper.ErrGone) || ctx.Err() != nil
		if err == nil || ours || !s.mounts || errors.Is(err, ErrNoAnswer) && !patient {
			return h, err
		}
		if unmountErr := errors.Join(s.waitExit(ctx), s.unmount(ctx)); unmountErr != nil {
			return nil, fmt.Errorf("%w; and it can't be mounted anew: %w", err, unmountErr)
		}
	}
	if err := s.mount(ctx); err != nil {
		return nil, err
	}
	return s.start(ctx, patient)
}

// start starts a helper and opens the share with it.
func (s *shareConn) start(ctx context.Context, patient bool) (Helper, error) {
	if err := s.acquireHelperSlot(ctx, patient); err != nil {
		return nil, err
	}
	h, err := s.options.Start(helper.Options{
		Path: s.path, NFS: s.mounts, Name: s.ref.Share.String(), Timeout: s.options.Timeout, Fence: s.options.Fence,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoHelper, err)
	}
	if err = h.Open(ctx); err == nil {
		err = h.Probe(ctx)
	}
	if err == nil {
		return h, nil
	}
	err = fmt.Errorf("%s: %w", s.ref.Share, err)
	if of, _ := fs.Types.Lookup(s.ref.Share.Type); !s.mounts && errors.Is(err, of.Stale) {
		err = fmt.Errorf("%w: the mount at %s is stale, and not the provisioner's own: whoever mounted it must do so anew, as kubelet does for a new pod", err, s.path)
	}
	s.mu.Lock()
	s.exiting = h
	s.mu.Unlock()
	// Also if ctx has ended. If it fails, the next start does, before it begins.
	_ = s.waitExit(context.WithoutCancel(ctx))
	return nil, err
}

// waitExit sees to it that the helper before is gone.
func (s *shareConn) waitExit(ctx context.Context) error {
	s.mu.Lock()
	exiting := s.exiting
	s.mu.Unlock()
	if exiting == nil {
		return nil
	}
	if err := exiting.End(ctx); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrNoAnswer, s.ref.Share, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.exiting == exiting { // not yet the next one
		s.exiting = nil
	}
	return nil
}

// sameExport are the accesses to one share, which differ in their mount options.
type sameExport struct {
	mu  sync.Mutex
	all []*shareConn
}

func (k *sameExport) add(s *shareConn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.all = append(k.all, s)
}

// waitExit sees to it that no helper of the share is exiting, under whatever options: one
// that will not die gets no second one beside it.
func (k *sameExport) waitExit(ctx context.Context) error {
	k.mu.Lock()
	all := slices.Clone(k.all)
	k.mu.Unlock()
	for _, s := range all {
		if err := s.waitExit(ctx); err != nil {
			return err
		}
	}
	return nil
}

// mount mounts the share. The caller has mountLock.
func (s *shareConn) mount(ctx context.Context) (err error) {
	defer func(started time.Time) { s.options.Observe(s.ref.Share, "mount", err, time.Since(started)) }(time.Now())
	of, err := fs.Types.Lookup(s.ref.Share.Type)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.path, 0o700); err != nil {
		return err
	}
	s.tried = true
	// A run of ours that was killed may have left its mount, with whatever options.
	if err := s.options.Mounter.Unmount(ctx, s.path); err != nil {
		return err
	}
	options := slices.Concat(s.ref.MountOptions, ownMountOptions, of.Options.Provisioner)
	if s.options.ReadOnly {
		options = append(options, readOnly) // the last of contradicting ones counts
	}
	if err := s.options.Mounter.Mount(ctx, of.Mount(s.ref.Share, "", options), s.path); err != nil {
		return err
	}
	s.mounted = true
	return nil
}

// unmount takes the share's mount and the mount point away, and what a mount that
// failed has left there. The caller has mountLock, and no helper is left, whose open
// root would make the mount busy.
func (s *shareConn) unmount(ctx context.Context) error {
	if s.tried {
		if err := s.options.Mounter.Unmount(ctx, s.path); err != nil {
			return err
		}
		s.mounted, s.tried = false, false
	}
	if err := os.Remove(s.path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// close ends the helper and unmounts the share, for good.
func (s *shareConn) close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	if s.helper != nil {
		s.exiting, s.helper = s.helper, nil
	}
	s.mu.Unlock()
	// Before mountLock, which the calls of the helper may hold up.
	err := s.waitExit(ctx)
	if turnErr := s.lockMount(ctx); turnErr != nil {
		return errors.Join(err, fmt.Errorf("%s is left as it is: %w", s.ref.Share, turnErr))
	}
	defer s.unlockMount()
	if err == nil {
		err = s.waitExit(ctx) // one that was being started
	}
	if s.mounts {
		err = errors.Join(err, s.unmount(ctx))
	}
	return err
}
