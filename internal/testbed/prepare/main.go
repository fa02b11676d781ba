// Command prepare makes what the Makefile's targets need and a fresh machine lacks.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"sharevol.dev/sharevol/internal/testbed"
)

const usage = `usage: prepare packages NAME...   installs Debian packages that are missing
       prepare images            builds sharevol's images and prints their tars`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "prepare:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	progress := testbed.NewProgress(os.Stderr)
	switch {
	case len(args) > 1 && args[0] == "packages":
		return testbed.EnsurePackages(ctx, progress, args[1:]...)
	case len(args) == 1 && args[0] == "images":
		return images(ctx, progress)
	}
	return errors.New(usage)
}

func images(ctx context.Context, progress *testbed.Progress) error {
	host, err := testbed.NewHost(progress)
	if err != nil {
		return err
	}
	version, err := host.Version()
	if err != nil {
		return err
	}
	tars, err := host.Images(ctx, version)
	for _, tar := range tars {
		fmt.Println(tar)
	}
	return err
}
