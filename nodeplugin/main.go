// Command sharevol-node is the CSI node service of sharevol: kubelet calls it to
// mount volume directories for pods and to unmount them.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"sharevol.dev/sharevol/internal/cli"
)

// version is stamped by the linker.
var version = "dev"

func main() {
	spareMemory()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "sharevol-node: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	var config Config
	program := cli.Program{Name: "sharevol-node", Purpose: "sharevol-node mounts sharevol's volumes for the pods of its node.", Version: version}
	if proceed, err := cli.Read(program, &config, args, stdout); err != nil || !proceed {
		return err
	}
	return serve(ctx, config)
}
