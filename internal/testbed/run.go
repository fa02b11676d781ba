package testbed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// inMachine is set in the environment of a program that runs in a machine.
const inMachine = "SHAREVOL_IN_MACHINE"

// InMachine says whether this process runs in a machine of the testbed.
func InMachine() bool { return os.Getenv(inMachine) == "1" }

// Where a program that runs in a machine finds things.
const (
	GuestPrograms = GuestShare + "/bin"    // etcd and Kubernetes
	GuestImages   = GuestShare + "/images" // docker-archive tars
	GuestLogs     = GuestShare + "/logs"   // kept on the host when the run fails
)

// TestArgs returns a test binary's arguments without those that name files of the host, which "go test"
// adds for its own bookkeeping.
func TestArgs(args []string) []string {
	return slices.DeleteFunc(slices.Clone(args), func(arg string) bool {
		return strings.HasPrefix(arg, "-test.testlogfile=") || strings.HasPrefix(arg, "-test.gocoverdir=")
	})
}

// Run says how a program goes through a machine.
type Run struct {
	Name    string            // of the run, for its logs
	Args    []string          // of this same program, in the machine
	Images  Images            // makes docker-archive tars, besides the local images; may be nil
	Files   map[string]string // more host files or folders, by their path below GuestShare
	Timeout time.Duration     // of the machine, preparations not included; 20 minutes when zero
	Output  io.Writer         // gets the program's output
}

// Images makes images and returns their docker-archive tars.
type Images func(ctx context.Context) ([]string, error)

// RunInMachine prepares all that a cluster needs and runs this very program again, with run.Args, in a
// fresh machine, where InMachine is true, package guest works and the working directory is GuestShare. It
// returns the program's exit status.
// The program must have been built with CGO_ENABLED=0, or for a libc no newer than the guest's.
// Afterwards nothing is left outside the cache folder; of a failed run the logs are kept in it.
func (h *Host) RunInMachine(ctx context.Context, run Run) (exitCode int, err error) {
	if runtime.GOARCH != "amd64" {
		return 0, fmt.Errorf("the user-mode kernel exists for amd64 only; this is %s", runtime.GOARCH)
	}
	kubernetes, images, err := h.prepare(ctx, run.Images)
	if err != nil {
		return 0, err
	}
	share, release, err := h.newShare(ctx, run.Name)
	if err != nil {
		return 0, err
	}
	defer func() {
		failed := err != nil || exitCode != 0
		err = errors.Join(err, h.endShare(share, run.Name, failed))
		release()
	}()
	if err := fillShare(share, kubernetes, images, run.Files); err != nil {
		return 0, err
	}
	if run.Timeout == 0 {
		run.Timeout = 20 * time.Minute
	}
	ctx, cancel := context.WithTimeoutCause(ctx, run.Timeout, fmt.Errorf("not done after %s", run.Timeout))
	defer cancel()
	return h.Boot(ctx, Options{
		Share: share, Output: run.Output,
		Command: append([]string{GuestShare + "/program"}, run.Args...),
		Env:     []string{inMachine + "=1"},
	})
}

// prepare makes what a run needs, side by side.
func (h *Host) prepare(ctx context.Context, more Images) (kubernetes string, images []string, err error) {
	// All at once, before anything is built: a user without root installs them by hand.
	packages := append(slices.Clone(hostPackages), imagePackages...)
	if needsXstateFix() {
		packages = append(packages, "gcc")
	}
	if err := EnsurePackages(ctx, h.progress, packages...); err != nil {
		return "", nil, err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		kubernetes, err = h.Kubernetes(ctx)
		return err
	})
	var local, own []string
	group.Go(func() (err error) {
		local, err = h.LocalImages(ctx)
		return err
	})
	group.Go(func() (err error) {
		if more != nil {
			own, err = more(ctx)
		}
		return err
	})
	err = group.Wait()
	return kubernetes, append(local, own...), err
}

// newShare makes a run's folder, and clears away those of runs that were killed. A running one holds a
// lock on its folder, which release gives back.
func (h *Host) newShare(ctx context.Context, name string) (share string, release func(), err error) {
	runs := filepath.Join(h.cache.dir, "runs")
	if err := os.MkdirAll(runs, 0o755); err != nil {
		return "", nil, fmt.Errorf("make the runs folder: %w", err)
	}
	unlock, err := h.cache.lock(ctx, "runs")
	if err != nil {
		return "", nil, err
	}
	defer unlock()
	left, err := os.ReadDir(runs)
	if err != nil {
		return "", nil, fmt.Errorf("list the runs: %w", err)
	}
	for _, entry := range left {
		path := filepath.Join(runs, entry.Name())
		if unlock, err := tryLock(path); err == nil {
			err = removeTree(path)
			unlock()
			if err != nil {
				return "", nil, fmt.Errorf("remove a run's remains: %w", err)
			}
		}
	}
	if share, err = os.MkdirTemp(runs, name+"-"); err != nil {
		return "", nil, fmt.Errorf("make the run's folder: %w", err)
	}
	release, err = tryLock(share)
	return share, release, err
}

func fillShare(share, kubernetes string, images []string, files map[string]string) error {
	for _, dir := range []string{"bin", "images", "logs"} {
		if err := os.Mkdir(filepath.Join(share, dir), 0o755); err != nil {
			return fmt.Errorf("make the run's folder: %w", err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if err := linkOrCopy(self, filepath.Join(share, "program")); err != nil {
		return err
	}
	for name := range kubernetesPrograms {
		if err := linkOrCopy(filepath.Join(kubernetes, name), filepath.Join(share, "bin", name)); err != nil {
			return err
		}
	}
	for _, image := range images {
		if err := linkOrCopy(image, filepath.Join(share, "images", filepath.Base(image))); err != nil {
			return err
		}
	}
	for to, from := range files {
		if err := copyTree(from, filepath.Join(share, to)); err != nil {
			return err
		}
	}
	return nil
}

func copyTree(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return fmt.Errorf("copy %q: %w", from, err)
	}
	if info.IsDir() {
		err = os.CopyFS(to, os.DirFS(from))
	} else if err = os.MkdirAll(filepath.Dir(to), 0o755); err == nil {
		err = linkOrCopy(from, to)
	}
	if err != nil {
		return fmt.Errorf("copy %q: %w", from, err)
	}
	return nil
}

// endShare removes a run's folder; the logs of a failed run stay until the next failure of that name.
func (h *Host) endShare(share, name string, failed bool) error {
	if failed {
		kept := filepath.Join(h.cache.dir, "logs-of-failed-"+name)
		if err := os.RemoveAll(kept); err != nil {
			return fmt.Errorf("remove older logs: %w", err)
		}
		if err := os.Rename(filepath.Join(share, "logs"), kept); err == nil {
			h.progress.Note("the logs of the failed run are in %s", kept)
		}
	}
	if err := removeTree(share); err != nil {
		return fmt.Errorf("remove the run's folder: %w", err)
	}
	return nil
}
