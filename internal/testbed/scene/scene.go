package scene

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sharevol.dev/sharevol/internal/testbed"
	"sharevol.dev/sharevol/internal/testbed/guest"
)

const (
	// Manifests is the repository's folder of that name, in the machine.
	Manifests = testbed.GuestShare + "/manifests"
	// Examples is what users copy and paste.
	Examples = Manifests + "/examples"
	// ServerName is the NFS server's name in the examples.
	ServerName = "nfs.example.com"
	// OtherName is another name of that server.
	OtherName = "storage.example.com"
	// Share is the exported path in the examples.
	Share = "/srv/volumes"
	// KubeletDir is kubelet's folder on the node.
	KubeletDir = "/var/lib/kubelet"

	poll        = 300 * time.Millisecond
	waitTimeout = 3 * time.Minute
)

// Scene is a running cluster with an NFS server beside it.
type Scene struct {
	NFS     *guest.NFS
	Cluster *guest.Cluster
}

// Start starts the NFS server and the cluster in this machine, side by side. note
// gets a line for whatever is ready.
func Start(ctx context.Context, note func(format string, args ...any)) (*Scene, error) {
	if err := nameServer(); err != nil {
		return nil, err
	}
	s := &Scene{}
	var group errgroup.Group
	group.Go(func() (err error) {
		if s.NFS, err = guest.StartNFS(ctx); err != nil {
			return err
		}
		return os.MkdirAll(s.NFS.Dir(Share), 0o755)
	})
	group.Go(func() (err error) {
		s.Cluster, err = guest.StartCluster(ctx, note)
		return err
	})
	return s, group.Wait()
}

// nameServer gives the NFS server its names, for the node and for pods of the
// host's network.
func nameServer() error {
	hosts, err := os.OpenFile("/etc/hosts", os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("name the NFS server: %w", err)
	}
	_, err = fmt.Fprintf(hosts, "%s %s %s\n", guest.NodeAddress, ServerName, OtherName)
	return errors.Join(err, hosts.Close())
}

// Install installs sharevol by its manifests and waits until it serves.
func (s *Scene) Install(ctx context.Context) error {
	if _, err := s.Cluster.Kubectl(ctx, "apply", "-k", Manifests); err != nil {
		return err
	}
	for _, what := range []string{"deployment/sharevol-provisioner", "daemonset/sharevol-node"} {
		if _, err := s.Cluster.Kubectl(ctx, "rollout", "status", what, "-n", guest.SystemNamespace, "--timeout=180s"); err != nil {
			return err
		}
	}
	return s.Wait(ctx, "the node plugin to be registered", func(ctx context.Context) (bool, string, error) {
		node, err := s.Cluster.Client().StorageV1().CSINodes().Get(ctx, guest.NodeName, metav1.GetOptions{})
		return err == nil && len(node.Spec.Drivers) > 0, fmt.Sprint(err), nil
	})
}

// Wait waits for a check, 3 minutes at most.
func (s *Scene) Wait(ctx context.Context, what string, check guest.Check) error {
	ctx, cancel := context.WithTimeout(ctx, waitTimeout)
	defer cancel()
	return guest.WaitFor(ctx, what, poll, check)
}

// Bound waits until a claim of the default namespace is bound, and returns its volume.
func (s *Scene) Bound(ctx context.Context, claim string) (*corev1.PersistentVolume, error) {
	core := s.Cluster.Client().CoreV1()
	var name string
	err := s.Wait(ctx, "claim "+claim+" to be bound", func(ctx context.Context) (bool, string, error) {
		c, err := core.PersistentVolumeClaims(metav1.NamespaceDefault).Get(ctx, claim, metav1.GetOptions{})
		if err != nil {
			return false, err.Error(), nil
		}
		name = c.Spec.VolumeName
		return c.Status.Phase == corev1.ClaimBound, string(c.Status.Phase), nil
	})
	if err != nil {
		return nil, err
	}
	return core.PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
}

// Running waits until a pod of the default namespace is ready, and returns it.
func (s *Scene) Running(ctx context.Context, name string) (*corev1.Pod, error) {
	var pod *corev1.Pod
	err := s.Wait(ctx, "pod "+name+" to run", func(ctx context.Context) (bool, string, error) {
		var err error
		if pod, err = s.Cluster.Client().CoreV1().Pods(metav1.NamespaceDefault).Get(ctx, name, metav1.GetOptions{}); err != nil {
			return false, err.Error(), nil
		}
		for _, condition := range pod.Status.Conditions {
			if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
				return true, "", nil
			}
		}
		return false, string(pod.Status.Phase), nil
	})
	return pod, err
}

// DeletePod deletes a pod of the default namespace and waits until it is gone,
// which is when kubelet has unpublished its volumes.
func (s *Scene) DeletePod(ctx context.Context, name string) error {
	pods := s.Cluster.Client().CoreV1().Pods(metav1.NamespaceDefault)
	soon := int64(1) // with 0 the API server would not wait for kubelet
	if err := pods.Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &soon}); err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	return s.gone(ctx, "pod "+name, func(ctx context.Context) error {
		_, err := pods.Get(ctx, name, metav1.GetOptions{})
		return err
	})
}

// DeleteClaim deletes a claim of the default namespace and waits until it is gone.
func (s *Scene) DeleteClaim(ctx context.Context, name string) error {
	claims := s.Cluster.Client().CoreV1().PersistentVolumeClaims(metav1.NamespaceDefault)
	if err := claims.Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	return s.gone(ctx, "claim "+name, func(ctx context.Context) error {
		_, err := claims.Get(ctx, name, metav1.GetOptions{})
		return err
	})
}

// VolumeGone waits until a PersistentVolume is gone.
func (s *Scene) VolumeGone(ctx context.Context, name string) error {
	return s.gone(ctx, "volume "+name, func(ctx context.Context) error {
		_, err := s.Cluster.Client().CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
		return err
	})
}

func (s *Scene) gone(ctx context.Context, what string, get func(context.Context) error) error {
	return s.Wait(ctx, what+" to be gone", func(ctx context.Context) (bool, string, error) {
		err := get(ctx)
		return apierrors.IsNotFound(err), fmt.Sprint(err), nil
	})
}

// Dir is a volume's directory as the NFS server sees it.
func (s *Scene) Dir(pv *corev1.PersistentVolume) string {
	attributes := pv.Spec.CSI.VolumeAttributes
	return s.NFS.Dir(filepath.Join(attributes["share"], attributes["subDir"]))
}

// File waits until a file has something in it, and returns that.
func (s *Scene) File(ctx context.Context, path string) (string, error) {
	var data []byte
	err := s.Wait(ctx, "the file "+path, func(context.Context) (bool, string, error) {
		var err error
		data, err = os.ReadFile(path)
		return len(data) > 0, fmt.Sprint(err), nil
	})
	return string(data), err
}

// Target is where kubelet has a volume published for a pod.
func Target(pod *corev1.Pod, pv *corev1.PersistentVolume) string {
	return filepath.Join(KubeletDir, "pods", string(pod.UID), "volumes", "kubernetes.io~csi", pv.Name, "mount")
}

// Mounts returns the lines of the node's mount table whose target is path.
func Mounts(path string) ([]string, error) {
	table, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return nil, err
	}
	var lines []string
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[1] == path {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines, nil
}
