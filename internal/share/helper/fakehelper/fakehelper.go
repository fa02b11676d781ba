// Package fakehelper is a helper process for tests that fails on demand. Until it
// is asked to, it does what the real one does.
package fakehelper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/share/dirs"
	"sharevol.dev/sharevol/internal/share/helper"
	"sharevol.dev/sharevol/internal/share/operation"
	"sharevol.dev/sharevol/internal/volume"
)

// argument is the first argument of a test's program when it is to be this helper.
const argument = "fake-share-helper"

// Command returns helper.Options.Command for a program that calls Main.
func Command() []string { return []string{"/proc/self/exe", argument} }

// Files in the share root that make it fail.
const (
	// Hang is a FIFO. As long as it is there, everything hangs in the kernel as on
	// a dead server: to be ended with SIGKILL only.
	Hang = "fake-hang"
	// Stale, made after the share was opened, makes all operations fail with ESTALE
	// until it is opened anew.
	Stale = "fake-stale"
	// StaleMount makes opening the share fail with ESTALE.
	StaleMount = "fake-stale-mount"
)

// Volume directories whose creation goes wrong, whatever the share does.
const (
	HangingDir  volume.SubDir = "hang"  // hangs in the kernel
	CrashingDir volume.SubDir = "crash" // ends the helper, as the kernel does when memory runs out
	StaleDir    volume.SubDir = "stale" // fails with ESTALE, which says nothing about the share root
	// SteadyDir, when deleted, progresses until the call is cancelled.
	SteadyDir volume.SubDir = "steady"
)

// Main is to be called first in TestMain. It returns only if the program is a test.
func Main() {
	if len(os.Args) < 2 {
		return
	}
	var err error
	switch os.Args[1] {
	case helper.Argument:
		err = helper.Main(os.Stdin, os.Stdout)
	case argument:
		err = helper.Serve(os.Stdin, os.Stdout, open)
	default:
		return
	}
	// Not os.Exit, which waits a second if the race detector is on.
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		syscall.Exit(1)
	}
	syscall.Exit(0)
}

// work is a share that fails on demand.
type work struct {
	helper.Root
	path string
	// staleBefore says that Stale was there already when this was opened.
	staleBefore bool
}

func open(path string, _ bool, fence func() error) (helper.Work, error) {
	if err := hang(filepath.Join(path, Hang)); err != nil {
		return nil, err
	}
	if exists(path, StaleMount) {
		return nil, &os.PathError{Op: "open", Path: path, Err: unix.ESTALE}
	}
	root, err := dirs.Open(path, dirs.Options{Fence: fence})
	if err != nil {
		return nil, err
	}
	return &work{Root: helper.Root{Root: root}, path: path, staleBefore: exists(path, Stale)}, nil
}

// hang opens the FIFO path for reading, which waits for a writer that never comes.
func hang(path string) error {
	for {
		switch fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0); {
		case err == nil:
			return unix.Close(fd)
		case errors.Is(err, unix.ENOENT):
			return nil
		case !errors.Is(err, unix.EINTR):
			return err
		}
	}
}

func exists(path, name string) bool {
	_, err := os.Lstat(filepath.Join(path, name))
	return err == nil
}

// failure returns what every operation fails with now.
func (w *work) failure() error {
	if err := hang(filepath.Join(w.path, Hang)); err != nil {
		return err
	}
	if !w.staleBefore && exists(w.path, Stale) {
		return &os.PathError{Op: "stat", Path: ".", Err: unix.ESTALE}
	}
	return nil
}

// Run fails on demand.
func (w *work) Run(ctx context.Context, name string, arguments json.RawMessage) (any, error) {
	var of struct{ SubDir volume.SubDir }
	_ = json.Unmarshal(arguments, &of) // of those operations that have one
	if name == operation.Create.Name {
		switch of.SubDir {
		case HangingDir:
			fifo := filepath.Join(w.path, "fake-fifo")
			if err := unix.Mkfifo(fifo, 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
				return nil, err
			}
			return nil, hang(fifo)
		case CrashingDir:
			return nil, unix.Kill(unix.Getpid(), unix.SIGKILL)
		case StaleDir:
			return nil, &os.PathError{Op: "mkdir", Path: string(StaleDir), Err: unix.ESTALE}
		}
	}
	if err := w.failure(); err != nil {
		return nil, err
	}
	for name == operation.Delete.Name && of.SubDir == SteadyDir {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
			dirs.Progress(ctx)()
		}
	}
	return w.Root.Run(ctx, name, arguments)
}

// Probe fails on demand.
func (w *work) Probe(ctx context.Context) error {
	if err := w.failure(); err != nil {
		return err
	}
	return w.Root.Probe(ctx)
}
