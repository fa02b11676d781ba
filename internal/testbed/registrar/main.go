// Command registrar stands in for node-driver-registrar in the tests: it takes the flags that the
// manifests give and speaks the same protocol, so that the manifests name the real image and work unchanged. It asks a CSI driver
// for its name and tells kubelet about it, over a socket that kubelet finds in its plugin folder.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// config holds node-driver-registrar's flags.
type config struct {
	csiAddress         string        // the driver's socket, as this process sees it
	registrationPath   string        // the driver's socket, as kubelet sees it
	pluginRegistration string        // the folder that kubelet watches, as this process sees it
	httpEndpoint       string        // where /healthz is; nowhere when empty
	timeout            time.Duration // of one call to the driver
	verbosity          int
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "registrar:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var c config
	flags := flag.NewFlagSet("csi-node-driver-registrar", flag.ContinueOnError)
	flags.StringVar(&c.csiAddress, "csi-address", "/run/csi/socket", "the driver's socket")
	flags.StringVar(&c.registrationPath, "kubelet-registration-path", "", "the driver's socket on the node")
	flags.StringVar(&c.pluginRegistration, "plugin-registration-path", "/registration", "kubelet's registration folder")
	flags.StringVar(&c.httpEndpoint, "http-endpoint", "", "address for /healthz")
	flags.DurationVar(&c.timeout, "timeout", time.Second, "deadline of a call to the driver")
	flags.IntVar(&c.verbosity, "v", 0, "verbosity")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if c.registrationPath == "" {
		return fmt.Errorf("--kubelet-registration-path is required")
	}
	return register(ctx, c)
}
