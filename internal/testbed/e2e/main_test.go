// Package e2e tests sharevol as its users have it: built from its Dockerfiles,
// installed by its manifests, in a real cluster, with the Linux kernel's NFS server
// and client. TestMain boots a machine for that and runs the tests inside.
package e2e

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"sharevol.dev/sharevol/internal/testbed"
	"sharevol.dev/sharevol/internal/testbed/scene"
)

// testTimeout ends the tests before the machine is ended, so that the logs are printed.
const testTimeout = 35 * time.Minute

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

func runInMachine() (int, error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	host, err := testbed.NewHost(testbed.NewProgress(os.Stderr))
	if err != nil {
		return 0, err
	}
	run := scene.Run(host, "e2e", testbed.TestArgs(os.Args[1:]), os.Stdout)
	run.Timeout = testTimeout + 5*time.Minute
	return host.RunInMachine(ctx, run)
}
