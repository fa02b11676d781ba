// Command sharevol-node is the CSI node service of sharevol: kubelet calls it to
// mount volume directories for pods and to unmount them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/klog/v2"

	"sharevol.dev/sharevol/internal/cli"
	"sharevol.dev/sharevol/internal/csiserver"
	"sharevol.dev/sharevol/internal/health"
	"sharevol.dev/sharevol/internal/nfsmount"
	"sharevol.dev/sharevol/internal/node"
)

// version is stamped by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "sharevol-node: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	var config Config
	flags := flag.NewFlagSet("sharevol-node", flag.ContinueOnError)
	config.AddFlags(flags)
	err := cli.Parse(flags, args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		cli.PrintUsage(stdout, flags, "sharevol-node mounts sharevol's volumes for the pods of its node.")
		return nil
	case config.Version && err == nil:
		_, err := fmt.Fprintln(stdout, "sharevol-node", version)
		return err
	}
	if err := errors.Join(err, config.Validate()); err != nil {
		return fmt.Errorf("bad command line:\n%w\n--help lists the flags", err)
	}
	return serve(ctx, config)
}

func serve(ctx context.Context, config Config) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	socket, err := csiserver.SocketPath(config.Endpoint)
	if err != nil {
		return err
	}
	probes, err := health.Listen(config.HTTPAddress)
	if err != nil {
		return err
	}
	calls, err := csiserver.Listen(socket)
	if err != nil {
		return err
	}
	mounter := nfsmount.New(nfsmount.Options{})
	klog.InfoS("Starting", "version", version, "driver", config.DriverName, "node", config.NodeID, "socket", socket)
	served := make(chan error, 1)
	go func() {
		defer cancel()
		// Through the socket, so that a server that hangs is found out.
		alive := func(ctx context.Context) error { return csiserver.Alive(ctx, socket) }
		ready := func(ctx context.Context) error { return csiserver.Probe(ctx, socket) }
		served <- health.Serve(ctx, probes, health.Options{Healthy: alive, Ready: ready})
	}()
	err = csiserver.Serve(ctx, calls, node.NewIdentity(config.DriverName, version, mounter), node.New(config.NodeID, mounter))
	cancel()
	return errors.Join(err, <-served)
}
