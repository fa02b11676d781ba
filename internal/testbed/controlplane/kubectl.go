package controlplane

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// Install applies sharevol's own manifests, as a user does. No pod runs: there are no nodes.
func (c *ControlPlane) Install(ctx context.Context) error {
	_, err := c.Kubectl(ctx, "apply", "--server-side", "-k", c.manifests)
	return err
}

// Kustomization returns the path of one of the repository's, "overlays/legacy" for example; of "" that for
// today's Kubernetes. What Combine has returned is a path already.
func (c *ControlPlane) Kustomization(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(c.manifests, filepath.FromSlash(name))
}

// Combine makes a kustomization of a base of the repository's and some of its components, as README tells to.
func (c *ControlPlane) Combine(base string, components ...string) (string, error) {
	dir, err := os.MkdirTemp(c.options.Dir, "combined-")
	if err != nil {
		return "", fmt.Errorf("combine %s with %s: %w", base, components, err)
	}
	manifests, err := filepath.EvalSymlinks(c.manifests)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir) // as kustomize sees it
	}
	if err != nil {
		return "", fmt.Errorf("combine %s with %s: %w", base, components, err)
	}
	relative := func(parts ...string) string {
		path, _ := filepath.Rel(dir, filepath.Join(append([]string{manifests}, parts...)...)) // both are absolute
		return path
	}
	text := "resources: [" + relative(base) + "]\ncomponents:\n"
	for _, name := range components {
		text += "- " + relative("components", name) + "\n"
	}
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o644); err != nil {
		return "", fmt.Errorf("combine %s with %s: %w", base, components, err)
	}
	return dir, nil
}

// Kubectl runs today's kubectl as an administrator, two minutes at most, and returns what it says; the error
// of a failed one holds that, too.
func (c *ControlPlane) Kubectl(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	args = append([]string{"--kubeconfig=" + c.Kubeconfig(), "--cache-dir=" + c.path("kubectl")}, args...)
	return output(ctx, "", filepath.Join(c.programs, "kubectl"), args...)
}
