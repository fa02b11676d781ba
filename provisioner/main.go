// Command sharevol-provisioner gives claims directories on NFS exports: it makes
// the directory, writes the PersistentVolume, and takes both away again.
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
	"time"

	"k8s.io/klog/v2"

	"sharevol.dev/sharevol/internal/cli"
	"sharevol.dev/sharevol/internal/health"
	"sharevol.dev/sharevol/internal/kubeclient"
	"sharevol.dev/sharevol/internal/nfsmount"
	"sharevol.dev/sharevol/internal/provision"
	"sharevol.dev/sharevol/internal/share"
)

// version is stamped by the linker.
var version = "dev"

// The stop: running calls, then the mounts, within the 10 s that are promised.
const (
	drainTimeout = 5 * time.Second
	closeTimeout = 4 * time.Second
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "sharevol-provisioner: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	var config Config
	flags := flag.NewFlagSet("sharevol-provisioner", flag.ContinueOnError)
	config.AddFlags(flags)
	err := cli.Parse(flags, args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		cli.PrintUsage(stdout, flags, "sharevol-provisioner gives Kubernetes claims directories on NFS exports.")
		return nil
	case config.Version && err == nil:
		_, err := fmt.Fprintln(stdout, "sharevol-provisioner", version)
		return err
	}
	if err := errors.Join(err, config.Validate()); err != nil {
		return fmt.Errorf("bad command line:\n%w\n--help lists the flags", err)
	}
	return serve(ctx, config)
}

func serve(ctx context.Context, config Config) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	client, err := kubeclient.New(kubeclient.Options{
		Kubeconfig: config.Kubeconfig, QPS: float32(config.KubeAPIQPS), Burst: config.KubeAPIBurst,
		UserAgent: "sharevol-provisioner/" + version,
	})
	if err != nil {
		return err
	}
	mounter := nfsmount.New(nfsmount.Options{})
	if err := mounter.Check(); err != nil {
		return fmt.Errorf("shares can't be mounted: %w", err)
	}
	listener, err := health.Listen(config.HTTPAddress)
	if err != nil {
		return err
	}
	// One share gets at most a quarter of the workers: a slow one leaves the rest to others.
	shares := share.NewManager(share.Options{Mounter: mounter, Concurrency: max(1, config.WorkerThreads/4)})
	provisioner := provision.New(config.DriverName, shares)
	controller := provision.NewController(client, config.DriverName, provisioner, config.WorkerThreads)

	klog.InfoS("Starting", "version", version, "driver", config.DriverName)
	served := make(chan error, 1)
	go func() {
		defer cancel()
		served <- health.Serve(ctx, listener, health.Options{Ready: controller.Ready, Metrics: provision.MetricsHandler(version)})
	}()
	controller.Run(ctx)

	klog.InfoS("Stopping")
	return errors.Join(<-served, stopWork(provisioner, shares))
}

func stopWork(provisioner *provision.Provisioner, shares *share.Manager) error {
	drain, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	if err := provisioner.Drain(drain); err != nil {
		klog.ErrorS(err, "Stopping before all calls have ended; the next start resumes them")
	}
	closing, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	return shares.Close(closing)
}
