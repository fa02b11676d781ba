package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"sharevol.dev/sharevol/internal/cli"
	"sharevol.dev/sharevol/internal/volume"
)

// Config is what the command line sets.
type Config struct {
	DriverName    string
	Kubeconfig    string
	KubeAPIQPS    int
	KubeAPIBurst  int
	WorkerThreads int
	HTTPAddress   string
}

// AddFlags adds the program's flags with their defaults.
func (c *Config) AddFlags(flags *flag.FlagSet) {
	flags.StringVar(&c.DriverName, "driver-name", volume.DefaultDriverName, "`name` that classes give as their provisioner and volumes as their CSI driver")
	flags.StringVar(&c.Kubeconfig, "kubeconfig", "", "`path` of a kubeconfig; the pod's service account when empty")
	c.KubeAPIQPS, c.KubeAPIBurst, c.WorkerThreads = 200, 400, 32
	cli.Int(flags, &c.KubeAPIQPS, "kube-api-qps", 1, 10000, "`requests` a second to the API server, sustained")
	cli.Int(flags, &c.KubeAPIBurst, "kube-api-burst", 1, 100000, "`requests` at once to the API server, at least kube-api-qps")
	cli.Int(flags, &c.WorkerThreads, "worker-threads", 1, 1000, "`number` of claims, and of deletions, worked on at a time")
	flags.StringVar(&c.HTTPAddress, "http-address", "127.0.0.1:29801", "`address` that serves /healthz, /readyz and /metrics")
}

// Validate names every fault that no single flag shows.
func (c *Config) Validate() error {
	errs := []error{cli.CheckDriverName(c.DriverName), cli.CheckAddress("http-address", c.HTTPAddress)}
	if c.KubeAPIBurst < c.KubeAPIQPS {
		errs = append(errs, fmt.Errorf("--kube-api-burst=%d: must be at least --kube-api-qps=%d", c.KubeAPIBurst, c.KubeAPIQPS))
	}
	if c.Kubeconfig != "" {
		if _, err := os.Stat(c.Kubeconfig); err != nil {
			errs = append(errs, fmt.Errorf("--kubeconfig=%q: must be a readable file: %w", c.Kubeconfig, err))
		}
	}
	return errors.Join(errs...)
}
