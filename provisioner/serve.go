package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/klog/v2"

	"sharevol.dev/sharevol/internal/health"
	"sharevol.dev/sharevol/internal/kubeclient"
	"sharevol.dev/sharevol/internal/nfsmount"
	"sharevol.dev/sharevol/internal/provision"
	"sharevol.dev/sharevol/internal/share"
)

// The stop: running calls, then the mounts, within the 10 s that are promised.
const (
	drainTimeout = 5 * time.Second
	closeTimeout = 4 * time.Second
)

// serve runs the program until ctx ends.
func serve(ctx context.Context, config Config) error {
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
