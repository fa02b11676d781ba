package main

import (
	"errors"
	"flag"
	"fmt"

	"sharevol.dev/sharevol/internal/cli"
	"sharevol.dev/sharevol/internal/csiserver"
	"sharevol.dev/sharevol/internal/volume"
)

// maxNodeID is the CSI specification's limit, in bytes.
const maxNodeID = 256

// Config is what the command line sets.
type Config struct {
	DriverName  string
	Endpoint    string
	NodeID      string
	HTTPAddress string
}

// AddFlags adds the program's flags with their defaults.
func (c *Config) AddFlags(flags *flag.FlagSet) {
	flags.StringVar(&c.DriverName, "driver-name", volume.DefaultDriverName, "`name` of the CSI driver, as volumes give it")
	flags.StringVar(&c.Endpoint, "endpoint", "unix:///csi/csi.sock", "unix `socket` that serves CSI")
	flags.StringVar(&c.NodeID, "node-id", "", "`name` of this node (required)")
	flags.StringVar(&c.HTTPAddress, "http-address", "127.0.0.1:29802", "`address` that serves /healthz and /readyz")
}

// Validate names every fault that no single flag shows.
func (c *Config) Validate() error {
	errs := []error{cli.CheckDriverName(c.DriverName), cli.CheckAddress("http-address", c.HTTPAddress)}
	if _, err := csiserver.SocketPath(c.Endpoint); err != nil {
		errs = append(errs, fmt.Errorf("--endpoint=%q: %w", c.Endpoint, err))
	}
	if c.NodeID == "" || len(c.NodeID) > maxNodeID {
		errs = append(errs, fmt.Errorf("--node-id=%q: must be the node's name, of 1 to %d bytes", c.NodeID, maxNodeID))
	}
	return errors.Join(errs...)
}
