package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// TestMain is what TestMain of a package does whose tests run inside a machine. There it runs them.
// Outside it boots a machine with what prepare returns, whose Args are added to those of this program,
// and has the tests run in there; prepare gets a folder that lasts as long. It returns the exit status.
func TestMain(tests interface{ Run() int }, prepare func(ctx context.Context, host *Host, dir string) (Run, error)) int {
	if InMachine() {
		return tests.Run()
	}
	code, err := runTests(prepare)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func runTests(prepare func(ctx context.Context, host *Host, dir string) (Run, error)) (code int, err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	host, err := NewHost(NewProgress(os.Stderr))
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "sharevol-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	run, err := prepare(ctx, host, dir)
	if err != nil {
		return 0, err
	}
	run.Args, run.Output = append(TestArgs(os.Args[1:]), run.Args...), os.Stdout
	return host.RunInMachine(ctx, run)
}
