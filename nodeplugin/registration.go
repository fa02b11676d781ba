package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sharevol.dev/sharevol/internal/csiserver"
	"sharevol.dev/sharevol/internal/registration"
)

// checkRegistration returns every fault of --registration-dir, and of --endpoint
// where kubelet receives it. endpoint is the socket's path.
func (c *Config) checkRegistration(endpoint string) []error {
	if c.RegistrationDir == "" {
		return nil
	}
	var errs []error
	if !filepath.IsAbs(c.RegistrationDir) {
		errs = append(errs, fmt.Errorf("--registration-dir=%q: must be the absolute path of kubelet's registration directory, for example %s",
			c.RegistrationDir, filepath.Join(c.KubeletDir, "plugins_registry")))
	} else if _, err := csiserver.SocketPath(registration.Socket(c.RegistrationDir, c.DriverName)); err != nil {
		errs = append(errs, fmt.Errorf("--registration-dir=%q: the path of the socket in it %w", c.RegistrationDir, err))
	}
	// Any other path exists in this container only.
	if endpoint != "" && !strings.HasPrefix(endpoint, filepath.Clean(c.KubeletDir)+"/") {
		errs = append(errs, fmt.Errorf("--endpoint=%q: must be below --kubelet-dir=%q with --registration-dir, because kubelet uses this path unchanged, for example unix://%s",
			c.Endpoint, c.KubeletDir, filepath.Join(c.KubeletDir, "plugins", c.DriverName, "csi.sock")))
	}
	return errs
}

// register opens the registration with kubelet, if the flags ask for one, and returns
// what serves it until ctx ends. endpoint is the path of the driver's socket.
func (c *Config) register(endpoint string) (serve func(ctx context.Context) error, err error) {
	if c.RegistrationDir == "" {
		return func(ctx context.Context) error { <-ctx.Done(); return nil }, nil
	}
	registered, err := registration.Listen(registration.Options{Dir: c.RegistrationDir, Driver: c.DriverName, Endpoint: endpoint})
	if err != nil {
		return nil, fmt.Errorf("--registration-dir=%q: %w", c.RegistrationDir, err)
	}
	return registered.Serve, nil
}

// makeSocketDir makes the directory of the driver's socket where that is one of kubelet's.
func (c *Config) makeSocketDir(endpoint string) error {
	if c.RegistrationDir == "" {
		return nil
	}
	return os.MkdirAll(filepath.Dir(endpoint), 0o750)
}
