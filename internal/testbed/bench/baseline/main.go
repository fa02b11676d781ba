// Command baseline is what the bench measures sharevol-provisioner against, run in its place: with
// --as=floor a bare watch loop, without the controller library and without a share, that makes and deletes the
// same volumes; with --as=library the library with the defaults that it has, as
// nfs-subdir-external-provisioner ships it, and a directory for each volume.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"sharevol.dev/sharevol/internal/health"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "baseline:", err)
		os.Exit(1)
	}
}

// config is what the command line sets, in the words of sharevol-provisioner where that has them.
type config struct {
	as, kubeconfig, driver, httpAddress, share string
	qps, burst, workers                        int
}

func run(ctx context.Context, args []string) error {
	var c config
	flags := flag.NewFlagSet("baseline", flag.ContinueOnError)
	flags.StringVar(&c.as, "as", "floor", "floor or library")
	flags.StringVar(&c.kubeconfig, "kubeconfig", "", "path of a kubeconfig")
	flags.StringVar(&c.driver, "driver-name", "", "name that classes give as their provisioner")
	flags.StringVar(&c.httpAddress, "http-address", "", "address that serves /readyz")
	flags.StringVar(&c.share, "share", "", "path of the share, for the library")
	flags.IntVar(&c.qps, "kube-api-qps", 0, "as of sharevol-provisioner; for the floor")
	flags.IntVar(&c.burst, "kube-api-burst", 0, "as of sharevol-provisioner; for the floor")
	flags.IntVar(&c.workers, "worker-threads", 1, "as of sharevol-provisioner; for the floor")
	if err := flags.Parse(args); err != nil {
		return err
	}
	rest, err := clientcmd.BuildConfigFromFlags("", c.kubeconfig)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	listener, err := health.Listen(c.httpAddress)
	if err != nil {
		return err
	}
	var ready atomic.Bool
	served := make(chan error, 1)
	go func() {
		served <- health.Serve(ctx, listener, health.Options{Ready: func(context.Context) error {
			if !ready.Load() {
				return errors.New("starting")
			}
			return nil
		}})
	}()
	err = c.serve(ctx, rest, func() { ready.Store(true) })
	cancel()
	return errors.Join(err, <-served)
}

func (c config) serve(ctx context.Context, config *rest.Config, ready func()) error {
	if c.as == "library" {
		client, err := kubernetes.NewForConfig(config) // with client-go's defaults
		if err != nil {
			return err
		}
		return serveLibrary(ctx, client, c.driver, c.share, ready)
	}
	config.QPS, config.Burst = float32(c.qps), c.burst
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	config.ContentType = "application/vnd.kubernetes.protobuf"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	return newFloor(client, c.driver).serve(ctx, c.workers, ready)
}
