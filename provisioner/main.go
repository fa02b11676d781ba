// Command sharevol-provisioner gives claims directories on NFS exports: it makes
// the directory, writes the PersistentVolume, and takes both away again.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"sharevol.dev/sharevol/internal/cli"
	"sharevol.dev/sharevol/internal/share/helper"
)

const purpose = `sharevol-provisioner gives Kubernetes claims directories on NFS exports.
"sharevol-provisioner check" looks at the cluster and its shares, changes nothing, and reports what needs attention;
"sharevol-provisioner check --help" lists its flags.`

// version is stamped by the linker.
var version = "dev"

func main() {
	if len(os.Args) == 2 && os.Args[1] == helper.Argument {
		// The end of main ends whatever an operation still waits for.
		if err := helper.Main(os.Stdin, os.Stdout); err != nil {
			fail(err)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if len(os.Args) > 1 && os.Args[1] == checkCommand {
		os.Exit(checkMain(ctx, os.Args[2:], os.Stdout, os.Stderr))
	}
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintf(os.Stderr, "sharevol-provisioner: %v\n", err)
	os.Exit(1)
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	var config Config
	program := cli.Program{Name: "sharevol-provisioner", Purpose: purpose, Version: version}
	if proceed, err := cli.Read(program, &config, args, stdout); err != nil || !proceed {
		return err
	}
	setUpLogs()
	return serve(ctx, config)
}
