package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sharevol.dev/sharevol/internal/testbed/scene"
)

// process returns the process whose command line begins with program.
func process(t *testing.T, program string) *os.Process {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	check(t, err)
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err != nil || !strings.HasPrefix(string(line), program+"\x00") {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(file, "/proc/%d/cmdline", &pid); err != nil {
			t.Fatal(err)
		}
		p, err := os.FindProcess(pid)
		check(t, err)
		return p
	}
	t.Fatalf("no process of %s", program)
	return nil
}

// signal sends a signal to a program of sharevol, waits until its container was
// restarted and is ready, and returns how the old one ended.
func (w world) signal(t *testing.T, component, container, program string, sig os.Signal) *corev1.ContainerStateTerminated {
	t.Helper()
	before := w.restarts(t, component, container)
	check(t, process(t, program).Signal(sig))
	return w.restarted(t, component, container, before)
}

// restarted waits until a container was restarted more than before times and is
// ready, and returns how the one before it ended.
func (w world) restarted(t *testing.T, component, container string, before int32) *corev1.ContainerStateTerminated {
	t.Helper()
	var ended *corev1.ContainerStateTerminated
	err := w.Wait(t.Context(), container+" to be restarted", func(ctx context.Context) (bool, string, error) {
		pod, err := w.systemPod(ctx, component)
		if err != nil {
			return false, err.Error(), nil
		}
		for _, status := range pod.Status.ContainerStatuses {
			if status.Name == container && status.RestartCount > before && status.Ready {
				ended = status.LastTerminationState.Terminated
				return true, "", nil
			}
		}
		return false, fmt.Sprint(pod.Status.ContainerStatuses), nil
	})
	check(t, err)
	return ended
}

func (w world) restarts(t *testing.T, component, container string) int32 {
	t.Helper()
	pod, err := w.systemPod(t.Context(), component)
	check(t, err)
	for _, status := range pod.Status.ContainerStatuses {
		if status.Name == container {
			return status.RestartCount
		}
	}
	return 0
}

// Killed in the middle of a burst of claims, and stopped in the middle of their
// deletion: each claim ends up with one directory, and each directory is removed.
func (w world) testRestartProvisioner(t *testing.T) {
	dir := w.NFS.Dir(scene.Share)
	before := entries(t, dir)
	restarts := w.restarts(t, "provisioner", "sharevol-provisioner")
	names := make([]string, 20)
	for i := range names {
		names[i] = fmt.Sprintf("burst-%d", i)
		w.claim(t, names[i], "sharevol", nil)
		if i == len(names)/2 {
			check(t, process(t, "/sharevol-provisioner").Kill())
		}
	}
	w.restarted(t, "provisioner", "sharevol-provisioner", restarts)
	volumes := map[string]*corev1.PersistentVolume{}
	for _, name := range names {
		volumes[name] = w.bound(t, name)
		if !exists(t, w.Dir(volumes[name])) {
			t.Errorf("%s has no directory", name)
		}
	}
	if after := entries(t, dir); after != before+len(names) {
		t.Errorf("%d directories for %d claims", after-before, len(names))
	}
	claims := w.client.CoreV1().PersistentVolumeClaims(metav1.NamespaceDefault)
	for _, name := range names {
		check(t, os.WriteFile(filepath.Join(w.Dir(volumes[name]), "file"), nil, 0o600))
		check(t, claims.Delete(t.Context(), name, metav1.DeleteOptions{}))
	}
	started := time.Now()
	ended := w.signal(t, "provisioner", "sharevol-provisioner", "/sharevol-provisioner", syscall.SIGTERM)
	if ended == nil || ended.ExitCode != 0 {
		t.Errorf("stopped with %+v", ended)
	} else if took := ended.FinishedAt.Sub(started); took > 10*time.Second {
		t.Errorf("it took %v to stop", took)
	}
	for _, name := range names {
		check(t, w.VolumeGone(t.Context(), volumes[name].Name))
	}
	if after := entries(t, dir); after != before {
		t.Errorf("%d directories left", after-before)
	}
}
