package guest

import (
	"context"
	"slices"
	"strings"
)

// storageControllers are those that claims and volumes need where there are no pods.
var storageControllers = []string{
	"persistentvolume-binder-controller",
	"persistentvolumeclaim-protection-controller", "persistentvolume-protection-controller",
}

// storageAPIs are all that a control plane without nodes serves, its own needs included: fewer groups,
// faster start, less memory.
var storageAPIs = []string{
	"api/v1", "storage.k8s.io/v1", "coordination.k8s.io/v1", "rbac.authorization.k8s.io/v1",
	"apiregistration.k8s.io/v1", "apiextensions.k8s.io/v1", "networking.k8s.io/v1", "scheduling.k8s.io/v1",
	"node.k8s.io/v1", "discovery.k8s.io/v1", "admissionregistration.k8s.io/v1",
}

// StartControlPlane starts what claims and volumes need, and no node: etcd, the API server, and of the
// controllers those for volumes. It is ready in half the time of StartCluster. Kubelet and containerd,
// pods and images are not to be had; programs run as processes of the machine, with KubeconfigPath.
func StartControlPlane(ctx context.Context, note func(format string, args ...any)) (*Cluster, error) {
	return startCluster(ctx, note, (*Cluster).startControlPlane)
}

func (c *Cluster) startControlPlane(running, starting context.Context) error {
	needed := slices.DeleteFunc(first(), func(it component) bool { return it.name == "containerd" })
	for _, it := range needed {
		for i, arg := range it.args {
			if strings.HasPrefix(arg, "--runtime-config=") {
				it.args[i] = "--runtime-config=api/all=false," + strings.Join(storageAPIs, "=true,") + "=true"
			}
		}
	}
	if err := c.launch(running, needed); err != nil {
		return err
	}
	if err := WaitFor(starting, "the API server to be ready", pollFast, c.check(c.get("/readyz"))); err != nil {
		return err
	}
	c.note("the API server is ready")
	return c.launch(running, third(storageControllers))
}
