package controlplane

import (
	"context"
	"path/filepath"
)

// Install applies sharevol's own manifests, as a user does. No pod runs: there are no nodes.
func (c *ControlPlane) Install(ctx context.Context) error {
	_, err := c.Kubectl(ctx, "apply", "--server-side", "-k", c.manifests)
	return err
}

// Kustomization returns the path of one of the repository's, "overlays/legacy" for example; of "" that for
// today's Kubernetes.
func (c *ControlPlane) Kustomization(name string) string {
	return filepath.Join(c.manifests, filepath.FromSlash(name))
}

// Kubectl runs today's kubectl as an administrator, two minutes at most, and returns what it says; the error
// of a failed one holds that, too.
func (c *ControlPlane) Kubectl(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	args = append([]string{"--kubeconfig=" + c.Kubeconfig(), "--cache-dir=" + c.path("kubectl")}, args...)
	return output(ctx, "", filepath.Join(c.programs, "kubectl"), args...)
}
