// Package servers tests what several NFS servers do to one provisioner when one of
// them dies, hangs, is slow, full, read-only or another one than it was: it hurts
// only its own volumes. TestMain boots a machine with a control plane and as many
// kernel NFS servers as the tests want, and runs the tests inside; the provisioner
// is a plain process there.
package servers

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
	testTimeout = 15 * time.Minute
	// program is the provisioner, below testbed.GuestShare.
	program = "sharevol-provisioner"
	// dirsTest is the unit tests of the directory work, likewise.
	dirsTest = "dirs.test"
	// parallel is how many tests may run at once: they wait more than they work, and
	// the machine's one processor would make it one.
	parallel = "-test.parallel=16"
)

func TestMain(m *testing.M) {
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
		return 0, fmt.Errorf("make a folder for the programs: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	files := map[string]string{}
	for name, command := range map[string][]string{
		program:  {"build", "-trimpath", "./provisioner"},
		dirsTest: {"test", "-c", "-trimpath", "./internal/share/dirs"},
	} {
		files[name] = filepath.Join(dir, name)
		build := exec.CommandContext(ctx, "go", append(command[:len(command)-1:len(command)-1], "-o", files[name], command[len(command)-1])...)
		build.Dir = host.Root()
		build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
		if out, err := build.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("build %s: %w: %s", name, err, out)
		}
	}
	return host.RunInMachine(ctx, testbed.Run{
		Name: "servers", Args: append(testbed.TestArgs(os.Args[1:]), parallel), Output: os.Stdout,
		Files: files, Timeout: testTimeout + 5*time.Minute,
	})
}
