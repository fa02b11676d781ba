package main

import (
	"errors"
	"flag"
	"fmt"
	"path/filepath"

	"sharevol.dev/sharevol/internal/cli"
	"sharevol.dev/sharevol/internal/csiserver"
	"sharevol.dev/sharevol/internal/node"
	"sharevol.dev/sharevol/internal/volume"
)

// maxNodeID is the CSI specification's limit, in bytes.
const maxNodeID = 256

// Config is what the command line sets.
type Config struct {
	DriverName      string
	Endpoint        string
	RegistrationDir string
	NodeID          string
	KubeletDir      string
	HTTPAddress     string
}

// AddFlags adds the program's flags with their defaults.
func (c *Config) AddFlags(flags *flag.FlagSet) {
	flags.StringVar(&c.DriverName, "driver-name", volume.DefaultDriverName, "`name` of the CSI driver, as volumes give it")
	flags.StringVar(&c.Endpoint, "endpoint", "unix:///csi/csi.sock", "unix `socket` that serves CSI")
	flags.StringVar(&c.RegistrationDir, "registration-dir", "", "kubelet's `directory` plugins_registry: register there, without node-driver-registrar")
	flags.StringVar(&c.NodeID, "node-id", "", "`name` of this node (required)")
	flags.StringVar(&c.KubeletDir, "kubelet-dir", node.DefaultKubeletDir, "kubelet's root `directory`, under the same path here as on the node; target paths outside of it are refused")
	flags.StringVar(&c.HTTPAddress, "http-address", "127.0.0.1:29802", "`address` that serves /healthz, /readyz and /metrics")
}

// Validate returns every fault that no single flag shows.
func (c *Config) Validate() error {
	errs := []error{cli.CheckDriverName(c.DriverName), cli.CheckAddress("http-address", c.HTTPAddress)}
	socket, err := csiserver.SocketPath(c.Endpoint)
	if err != nil {
		errs = append(errs, fmt.Errorf("--endpoint=%q: %w", c.Endpoint, err))
	}
	errs = append(errs, c.checkRegistration(socket)...)
	if !filepath.IsAbs(c.KubeletDir) || filepath.Clean(c.KubeletDir) == "/" {
		errs = append(errs, fmt.Errorf("--kubelet-dir=%q: must be the absolute path of kubelet's root directory, for example %s", c.KubeletDir, node.DefaultKubeletDir))
	}
	if c.NodeID == "" || len(c.NodeID) > maxNodeID {
		errs = append(errs, fmt.Errorf("--node-id=%q: must be the node's name, of 1 to %d bytes", c.NodeID, maxNodeID))
	}
	return errors.Join(errs...)
}
