package guest

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"k8s.io/client-go/kubernetes"

	"sharevol.dev/sharevol/internal/testbed"
)

// Client is an administrator's client without a rate limit.
func (c *Cluster) Client() kubernetes.Interface { return c.client }

// AuditLog is a file with one JSON audit event a line for every call that a service account of
// SystemNamespace made.
func (c *Cluster) AuditLog() string { return filepath.Join(testbed.GuestLogs, auditLog) }

// Kubectl runs kubectl as an administrator and returns what it printed.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	return output(ctx, filepath.Join(testbed.GuestPrograms, "kubectl"), append([]string{"--kubeconfig=" + KubeconfigPath}, args...)...)
}

// ImportImage gives the node the images of a docker-archive tar.
func (c *Cluster) ImportImage(ctx context.Context, tarPath string) error {
	if _, err := output(ctx, "ctr", "--namespace=k8s.io", "images", "import", tarPath); err != nil {
		return fmt.Errorf("import the image %q: %w", tarPath, err)
	}
	return nil
}

// Restart ends a component ("kubelet" for example) as an upgrade would, and starts it again. It returns
// before the new one has done anything.
func (c *Cluster) Restart(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, old := range c.components {
		if old.name != name {
			continue
		}
		if err := old.stop(); err != nil {
			return err
		}
		p, err := old.again()
		if err != nil {
			return err
		}
		p.again = old.again
		c.components[i] = p
		return nil
	}
	return fmt.Errorf("restart %s: no such component", name)
}

// Stop ends the cluster's components, clients first. What containerd started keeps running until the
// machine ends.
func (c *Cluster) Stop() error {
	defer c.cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []error
	for len(c.components) > 0 {
		last := len(c.components) - 1
		all = append(all, c.components[last].stop())
		c.components = c.components[:last]
	}
	return errors.Join(all...)
}
