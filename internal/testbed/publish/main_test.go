// Package publish tests the node plugin on real NFS: kernel servers that die, are cut
// off, lose their export or a directory, while volumes are mounted, being mounted and
// being unmounted, and a plugin that is killed at any moment. TestMain boots a machine
// and runs the tests inside; the plugin is a plain process there, and kubelet's part
// is played by the tests.
package publish

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"sharevol.dev/sharevol/internal/testbed"
)

const (
	// testTimeout ends the tests before the machine is ended, so that the logs are printed.
	testTimeout = 12 * time.Minute
	// program is the plugin, below testbed.GuestShare.
	program = "sharevol-node"
	// parallel is how many tests may run at once: they wait more than they work.
	parallel = "-test.parallel=16"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(writerVariable); path != "" {
		if err := runWriter(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if testbed.InMachine() {
		os.Exit(m.Run())
	}
	code, err := runInMachine()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func runInMachine() (code int, err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	host, err := testbed.NewHost(testbed.NewProgress(os.Stderr))
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "sharevol-")
	if err != nil {
		return 0, fmt.Errorf("make a folder for the plugin: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	built := filepath.Join(dir, program)
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", built, "./nodeplugin")
	build.Dir = host.Root()
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build the plugin: %w: %s", err, out)
	}
	return host.RunInMachine(ctx, testbed.Run{
		Name: "publish", Args: append(testbed.TestArgs(os.Args[1:]), parallel), Output: os.Stdout,
		Files: map[string]string{program: built}, Timeout: testTimeout + 5*time.Minute,
	})
}
