// Package nfsmount mounts and unmounts NFS exports with mount(8) and umount(8),
// in child processes that are killed at a deadline, and reads from mountinfo
// what is mounted where. It never looks at a mounted directory itself: on a dead
// server that would block for ever.
package nfsmount

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os/exec"
	"path"
	"slices"
	"strings"
	"time"

	mount "k8s.io/mount-utils"
)

// The defaults of Options. kubelet gives up on a publish after 2 minutes, so that
// mounting, undoing and answering must fit into that.
const (
	defaultMountTimeout   = 60 * time.Second
	defaultUnmountTimeout = 10 * time.Second
)

// foreground makes mount.nfs report the first failure instead of trying again for
// minutes, and keeps it from trying in the background, where no deadline of ours
// would reach it. The last of contradicting options counts.
var foreground = []string{"fg", "retry=0"}

// ErrSource says that something else was mounted than what was asked for, and
// that it was unmounted again.
var ErrSource = errors.New("the server resolved the path to another one")

// Options of a Mounter. The zero value is what both programs use.
type Options struct {
	// MountTimeout bounds one mount(8), 60 s when zero.
	MountTimeout time.Duration
	// UnmountTimeout bounds one umount(8), 10 s when zero. Unmount runs at most two.
	UnmountTimeout time.Duration
	// MountInfo is the file that tells what is mounted, /proc/self/mountinfo when empty.
	MountInfo string
}

// Mounter runs mount(8) and umount(8). Its methods may be called at the same
// time for different targets; for one target the caller takes turns. A command
// that does not end when it is killed keeps others of its kind from its target:
// what it was doing may still take effect, and nothing piles up.
type Mounter struct {
	options Options
	runner  *runner
}

// New returns a Mounter.
func New(options Options) *Mounter {
	if options.MountTimeout == 0 {
		options.MountTimeout = defaultMountTimeout
	}
	if options.UnmountTimeout == 0 {
		options.UnmountTimeout = defaultUnmountTimeout
	}
	if options.MountInfo == "" {
		options.MountInfo = "/proc/self/mountinfo"
	}
	return &Mounter{options: options, runner: newRunner()}
}

// Check says what is missing on this machine for Mount and Unmount to work.
func (m *Mounter) Check() error {
	var errs []error
	for _, program := range []string{"mount", "umount", "mount.nfs"} {
		// mount(8) looks for its helper in /sbin whatever PATH says.
		if _, err := exec.LookPath(program); err != nil {
			if _, err := exec.LookPath("/sbin/" + program); err != nil {
				errs = append(errs, err)
			}
		}
	}
	_, err := mountsOn("/", m.options.MountInfo)
	return errors.Join(append(errs, err, adopt())...)
}

// Mount mounts source ("server:/path") on the directory target, which must exist
// and have nothing mounted on it. It returns nil only when mountinfo shows source
// there; otherwise nothing is left mounted, unless the error says so. The error
// holds mount's own words and matches fs.ErrNotExist where the server has no such
// directory, fs.ErrPermission where it denies access, ErrSource where it led the
// mount elsewhere, and context.DeadlineExceeded where it did not answer in time.
func (m *Mounter) Mount(ctx context.Context, source, target string, options []string) error {
	target, err := canonical(target)
	if err != nil {
		return err
	}
	if layers, err := m.Layers(target); err != nil {
		return err
	} else if len(layers) > 0 {
		return fmt.Errorf("mount %s on %s: something is mounted there already: %v", source, target, layers)
	}
	what := job{"mount", target}
	if err := m.runner.check(what); err != nil {
		return fmt.Errorf("mount %s on %s: %w", source, target, err)
	}
	ctx, cancel := context.WithTimeout(ctx, m.options.MountTimeout)
	defer cancel()
	output, err := m.runner.run(ctx, m.runner.grace, what, "mount", mount.MakeMountArgs(source, target, "nfs", append(slices.Clone(options), foreground...))...)
	if err != nil {
		err = fmt.Errorf("mount %s on %s: %w", source, target, classify(output, err))
	} else {
		err = m.verify(source, target)
	}
	if err == nil {
		return nil
	}
	// A killed or failed mount may have taken effect all the same. ctx may be over.
	return errors.Join(err, m.Unmount(context.WithoutCancel(ctx), target))
}

// verify returns nil if source, and only it, is mounted on target.
func (m *Mounter) verify(source, target string) error {
	layers, err := m.Layers(target)
	switch {
	case err != nil:
		return err
	case len(layers) != 1:
		return fmt.Errorf("mount %s on %s: expected one mount there, mountinfo shows %v", source, target, layers)
	case !layers[0].Shows(source):
		return fmt.Errorf("mount %s on %s: %w: %s; a link on the server, or an export under another name: use the real path", source, target, ErrSource, layers[0].Source)
	}
	return nil
}

// Unmount takes away every layer that is mounted on target, with umount(8) and,
// where that does not end in time or fails, by detaching (umount -l). It never
// forces (umount -f): volumes of one export share a superblock, and forcing one
// fails the writes of the others. Nothing mounted is success. It returns nil only
// when mountinfo shows nothing on target, and no killed mount(8) can still put
// something there. It returns when ctx ends at the latest, or, where that has no
// deadline, soon after; what it runs is killed before that.
func (m *Mounter) Unmount(ctx context.Context, target string) error {
	target, err := canonical(target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for {
		before, err := m.Layers(target)
		if err != nil {
			return err
		}
		if len(before) == 0 {
			return m.runner.check(job{"mount", target})
		}
		// -i: no helper that would call the server; -c: no look at the path itself.
		// It may wait for a dead server: half of the time is left for detaching.
		err = m.umount(ctx, m.left(ctx)/2, job{"umount", target}, "-n", "-c", "-i", target)
		if err != nil {
			err = m.umount(ctx, m.left(ctx), job{"umount -l", target}, "-n", "-c", "-i", "-l", target)
		}
		// Another process may have unmounted it meanwhile: only mountinfo counts.
		if after, readErr := m.Layers(target); readErr != nil || len(after) >= len(before) {
			return errors.Join(err, readErr, fmt.Errorf("%s is still mounted", target))
		}
	}
}

// left returns how long an Unmount with this context may still take.
func (m *Mounter) left(ctx context.Context) time.Duration {
	if deadline, set := ctx.Deadline(); set {
		return time.Until(deadline)
	}
	return math.MaxInt64
}

// umount runs umount(8), which is killed after two thirds of limit at most. The rest is
// for its end after that.
func (m *Mounter) umount(ctx context.Context, limit time.Duration, what job, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, min(m.options.UnmountTimeout, limit/3*2))
	defer cancel()
	if output, err := m.runner.run(ctx, min(m.runner.grace, limit/3), what, "umount", args...); err != nil {
		return fmt.Errorf("umount %s: %w", what.target, classify(output, err))
	}
	return nil
}

// classify joins a command's output to its error, and to the error that callers
// test for.
func classify(output string, err error) error {
	err = fmt.Errorf("%w: %s", err, output)
	// The texts are those of mount.nfs in nfs-utils and of strerror(3) in the C locale.
	switch lower := strings.ToLower(output); {
	case strings.Contains(lower, "no such file or directory"), strings.Contains(lower, "not a directory"):
		return fmt.Errorf("%w (%w)", err, fs.ErrNotExist)
	case strings.Contains(lower, "access denied"), strings.Contains(lower, "permission denied"), strings.Contains(lower, "operation not permitted"):
		return fmt.Errorf("%w (%w)", err, fs.ErrPermission)
	}
	return err
}

// Layer is one mount on a directory.
type Layer struct {
	Source string // what is mounted, for NFS "server:/path"
	FSType string // "nfs4", "nfs", ...
}

// Shows reports whether l is the NFS export source ("server:/path"). Only the
// path is compared: where two names of one server share a superblock, the kernel
// shows every mount of it under the name that came first.
func (l Layer) Shows(source string) bool {
	return strings.HasPrefix(l.FSType, "nfs") && remotePath(l.Source) == remotePath(source)
}

func remotePath(source string) string {
	_, after, found := strings.Cut(source, ":/")
	if !found {
		return ""
	}
	return path.Clean("/" + after)
}

// Layers returns what is mounted on target itself, the lowest first, from
// mountinfo alone.
func (m *Mounter) Layers(target string) ([]Layer, error) {
	target, err := canonical(target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	infos, err := mountsOn(target, m.options.MountInfo)
	if err != nil {
		return nil, err
	}
	layers := make([]Layer, 0, len(infos))
	for _, info := range infos {
		layers = append(layers, Layer{Source: info.Source, FSType: info.FSType})
	}
	return layers, nil
}
