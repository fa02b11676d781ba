// Package mount mounts and unmounts file systems with mount(8) and umount(8), in child
// processes that are killed at a deadline, and reads from mountinfo what is mounted where.
// It never looks at a mounted directory itself: on a dead server that would block for
// ever. It knows no type of file system; package fs says how each is mounted. What is said
// of mount(8) goes for a Spec's Helper too, which is run in its place.
package mount

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"time"

	"sharevol.dev/sharevol/internal/process"
)

// The defaults of Options. kubelet gives up on a publish after 2 minutes, so that
// mounting, undoing and answering must fit into that.
const (
	defaultMountTimeout   = 60 * time.Second
	defaultUnmountTimeout = 10 * time.Second
)

// ErrSource says that something else was mounted than what was asked for, and
// that it was unmounted again.
var ErrSource = errors.New("the server resolved the path to another one")

// Spec says what to mount and how.
type Spec struct {
	// Type is the type of file system, as mount -t takes it.
	Type string
	// Source is what to mount, as mount(8) takes it.
	Source string
	// Options are those of mount -o. The last of contradicting ones counts.
	Options []string
	// Helper, when not empty, is the program that mount(8) would run for Type. It is run
	// itself where mount(8) would do nothing else.
	Helper string
	// Shows reports whether a mount that mountinfo shows is the one that Spec asks for.
	Shows func(Layer) bool
}

// Options of a Mounter. The zero value is complete.
type Options struct {
	// MountTimeout bounds one mount(8), 60 s when zero.
	MountTimeout time.Duration
	// UnmountTimeout bounds one umount(8), 10 s when zero. Unmount runs at most two.
	UnmountTimeout time.Duration
	// MountInfo is the file that lists the mounts, /proc/self/mountinfo when empty.
	MountInfo string
	// Helpers are the mount helpers that Check looks for.
	Helpers []string
	// Exclusive keeps a mount(8) that outlives this process, killed while it ran one,
	// from being joined by a second one on the same target: Mount holds a lock on the
	// target's parent directory, which the command inherits. It is for targets that have
	// a parent of their own on a local disk, as kubelet's have; with a shared parent one
	// Mount at a time succeeds.
	Exclusive bool
	// Unmounted, when not nil, is called for each layer that was to be unmounted, at any
	// time and from several goroutines.
	Unmounted func(Unmounted)
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
	if options.Unmounted == nil {
		options.Unmounted = func(Unmounted) {}
	}
	return &Mounter{options: options, runner: newRunner()}
}

// Check lists what Mount and Unmount lack on this machine.
func (m *Mounter) Check() error {
	var errs []error
	for _, program := range []string{"mount", "umount"} {
		_, err := exec.LookPath(program)
		errs = append(errs, err)
	}
	for _, helper := range m.options.Helpers {
		_, err := findHelper(helper)
		errs = append(errs, err)
	}
	_, err := mounts(m.options.MountInfo, func(target string) bool { return target == "/" })
	return errors.Join(append(errs, err, process.Check())...)
}

// Mount mounts spec on the directory target, which must exist and have nothing mounted on
// it. It returns nil only when mountinfo shows there what spec asks for; otherwise nothing
// is left mounted, unless the error says so. The error holds mount's own words and matches
// fs.ErrNotExist where the server has no such directory, fs.ErrPermission where it denies
// access, ErrSource where it led the mount elsewhere, context.DeadlineExceeded where it did
// not answer in time, and ErrPending where an earlier mount(8) still works on target. When
// ctx ends it takes three UnmountTimeouts more at most: for killing and undoing.
func (m *Mounter) Mount(ctx context.Context, spec Spec, target string) error {
	target, err := canonical(target)
	if err != nil {
		return err
	}
	if err := m.lockAndMount(ctx, spec, target); err != nil {
		return fmt.Errorf("mount %s on %s: %w", spec.Source, target, err)
	}
	return nil
}

func (m *Mounter) lockAndMount(ctx context.Context, spec Spec, target string) error {
	what := job{"mount", target}
	if err := m.runner.check(what); err != nil {
		return err
	}
	var lock *os.File
	if m.options.Exclusive {
		var err error
		if lock, err = lockParent(target); err != nil {
			return err
		}
		defer func() { unlock(lock, m.runner.check(what) == nil) }()
	}
	// Only now: an earlier mount(8) may have been at work until the lock was free.
	if layers, err := m.layers(target); err != nil {
		return err
	} else if len(layers) > 0 {
		return fmt.Errorf("something is mounted there already: %v", layers)
	}
	err := m.mount(ctx, spec, what, lock)
	if err == nil {
		return nil
	}
	// A killed or failed mount may have taken effect all the same. ctx may be over.
	undoing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*m.options.UnmountTimeout)
	defer cancel()
	return errors.Join(err, m.unmount(undoing, target, func() error { return m.runner.check(what) }))
}

func (m *Mounter) mount(ctx context.Context, spec Spec, what job, lock *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, m.options.MountTimeout)
	defer cancel()
	name, args, err := spec.command(what.target)
	if err != nil {
		return err
	}
	if output, err := m.runner.run(ctx, m.runner.grace, what, lock, name, args...); err != nil {
		return classify(output, err)
	}
	return m.verify(spec, what.target)
}

// verify returns nil if what spec asks for, and only that, is mounted on target.
func (m *Mounter) verify(spec Spec, target string) error {
	layers, err := m.layers(target)
	switch {
	case err != nil:
		return err
	case len(layers) != 1:
		return fmt.Errorf("expected one mount there, mountinfo shows %v", layers)
	case !spec.Shows(layers[0]):
		return fmt.Errorf("%w: %s; a link on the server, or an export under another name: use the real path", ErrSource, layers[0].Source)
	}
	return nil
}

// classify joins a command's output to its error, and to the error that callers
// test for.
func classify(output string, err error) error {
	err = fmt.Errorf("%w: %s", err, output)
	// The texts are those of strerror(3) in the C locale, and of mount.nfs in nfs-utils.
	switch lower := strings.ToLower(output); {
	case strings.Contains(lower, "no such file or directory"), strings.Contains(lower, "not a directory"):
		return fmt.Errorf("%w (%w)", err, fs.ErrNotExist)
	case strings.Contains(lower, "access denied"), strings.Contains(lower, "permission denied"), strings.Contains(lower, "operation not permitted"):
		return fmt.Errorf("%w (%w)", err, fs.ErrPermission)
	}
	return err
}
