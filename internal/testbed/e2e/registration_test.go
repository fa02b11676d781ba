package e2e

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sharevol.dev/sharevol/internal/testbed/guest"
	"sharevol.dev/sharevol/internal/testbed/scene"
)

const (
	registry           = scene.KubeletDir + "/plugins_registry"
	registrationSocket = registry + "/csi.sharevol.dev-reg.sock"
)

// Both ways of registration with a real kubelet: by node-driver-registrar, and by
// sharevol-node itself, as the only container of its pod.
func (w world) testRegistration(t *testing.T) {
	defer func() { check(t, w.Install(t.Context())) }() // as it was
	volumes := map[string]*corev1.PersistentVolume{}
	for i := range 5 {
		name := fmt.Sprintf("registration-%d", i)
		w.claim(t, name, "sharevol", nil)
		volumes[name] = w.bound(t, name)
	}
	t.Run("Registrar", func(t *testing.T) { w.surviveRestarts(t, volumes, func(int) { w.waitForDriver(t, true) }) })
	t.Run("NoSidecar", func(t *testing.T) {
		_, err := w.Cluster.Kubectl(t.Context(), "apply", "-k", scene.Manifests+"/overlays/no-sidecar")
		check(t, err)
		_, err = w.Cluster.Kubectl(t.Context(), "rollout", "status", "daemonset/sharevol-node", "-n", guest.SystemNamespace, "--timeout=180s")
		check(t, err)
		pod, err := w.systemPod(t.Context(), "node")
		check(t, err)
		if len(pod.Spec.Containers) != 1 {
			t.Errorf("%d containers", len(pod.Spec.Containers))
		}
		w.waitForRegistrations(t, 1)
		w.waitForDriver(t, true)
		if info, err := os.Lstat(registrationSocket); err != nil || info.Mode() != fs.ModeSocket|0o600 {
			t.Errorf("the socket: %v, %v", info, err)
		}
		w.surviveRestarts(t, volumes, func(times int) { w.waitForRegistrations(t, times) })
		check(t, os.Remove(registrationSocket))
		w.waitForRegistrations(t, 3)
		w.waitForDriver(t, true)
	})
	t.Run("Removed", w.testRemoved)
	for name, pv := range volumes {
		w.remove(t, name, pv)
	}
}

// surviveRestarts runs pods with five claims each, before and after the node plugin
// is killed and kubelet is restarted. registered waits until the plugin's process was
// registered a number of times.
func (w world) surviveRestarts(t *testing.T, volumes map[string]*corev1.PersistentVolume, registered func(times int)) {
	w.podOf(t, "before", volumes, `(n=0; while sleep 1; do n=$((n+1)); for dir in /data/*; do echo $n >$dir/now || touch /tmp/broken; done; done) &`)
	before := w.running(t, "before")
	w.signal(t, "node", "sharevol-node", "/sharevol-node", syscall.SIGKILL)
	registered(1)
	check(t, w.Cluster.Restart("kubelet"))
	w.podOf(t, "after", volumes, `for dir in /data/*; do test -e $dir/now; echo after >$dir/after; done`)
	after := w.running(t, "after") // by a kubelet that knows only what was registered with it
	registered(2)
	for _, pv := range volumes {
		file := filepath.Join(w.Dir(pv), "after")
		if got := read(t, file); got != "after\n" {
			t.Errorf("in the directory of %s: %q", pv.Name, got)
		}
		check(t, os.Remove(file))
		now := filepath.Join(w.Dir(pv), "now")
		first := read(t, now)
		err := w.Wait(t.Context(), "the pod to go on writing", func(context.Context) (bool, string, error) {
			second := read(t, now)
			return second != "" && second != first, second, nil
		})
		check(t, err)
		for _, pod := range []*corev1.Pod{before, after} {
			if mounts, err := scene.Mounts(scene.Target(pod, pv)); err != nil || len(mounts) != 1 {
				t.Errorf("mounts of %s: %q, %v", pod.Name, mounts, err)
			}
		}
	}
	if out, err := w.Cluster.Kubectl(t.Context(), "exec", "before", "--", "test", "!", "-e", "/tmp/broken"); err != nil {
		t.Errorf("the pod could not always write: %s %v", out, err)
	}
	for _, pod := range []*corev1.Pod{before, after} {
		check(t, w.DeletePod(t.Context(), pod.Name))
		for _, pv := range volumes {
			target := scene.Target(pod, pv)
			if mounts, err := scene.Mounts(target); err != nil || len(mounts) > 0 || exists(t, target) {
				t.Errorf("left of %s: %q, %v", target, mounts, err)
			}
		}
	}
}

// testRemoved removes the DaemonSet, and what kubelet knows of the driver goes with it.
func (w world) testRemoved(t *testing.T) {
	_, err := w.Cluster.Kubectl(t.Context(), "delete", "daemonset/sharevol-node", "-n", guest.SystemNamespace, "--cascade=foreground", "--timeout=120s")
	check(t, err)
	for _, path := range []string{registrationSocket, scene.KubeletDir + "/plugins/csi.sharevol.dev/csi.sock"} {
		if exists(t, path) {
			t.Errorf("left behind: %s", path)
		}
	}
	w.waitForDriver(t, false)
}

// podOf makes a pod that has volumes at /data/0 and so on, and runs script.
func (w world) podOf(t *testing.T, name string, volumes map[string]*corev1.PersistentVolume, script string) {
	t.Helper()
	w.pod(t, name, "", script, func(pod *corev1.Pod) {
		pod.Spec.Volumes, pod.Spec.Containers[0].VolumeMounts = nil, nil
		for claim := range volumes {
			pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: claim, VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim},
			}})
			mount := corev1.VolumeMount{Name: claim, MountPath: "/data/" + claim}
			pod.Spec.Containers[0].VolumeMounts = append(pod.Spec.Containers[0].VolumeMounts, mount)
		}
	})
}

// waitForDriver waits until the node says that it has the driver, or that it has not.
func (w world) waitForDriver(t *testing.T, want bool) {
	t.Helper()
	err := w.Wait(t.Context(), "kubelet to have the driver or not", func(ctx context.Context) (bool, string, error) {
		node, err := w.client.StorageV1().CSINodes().Get(ctx, guest.NodeName, metav1.GetOptions{})
		if err != nil {
			return false, err.Error(), nil
		}
		found := false
		for _, driver := range node.Spec.Drivers {
			found = found || driver.Name == "csi.sharevol.dev"
		}
		return found == want, fmt.Sprint(node.Spec.Drivers), nil
	})
	check(t, err)
}

// waitForRegistrations waits until kubelet has registered the running sharevol-node a
// number of times, by the program's log.
func (w world) waitForRegistrations(t *testing.T, times int) {
	t.Helper()
	err := w.Wait(t.Context(), fmt.Sprintf("registration %d", times), func(ctx context.Context) (bool, string, error) {
		log, err := w.Cluster.Kubectl(ctx, "logs", "-n", guest.SystemNamespace, "daemonset/sharevol-node", "--request-timeout=10s")
		return strings.Count(log, "kubelet registered the driver") >= times, fmt.Sprint(log, err), nil
	})
	check(t, err)
}
