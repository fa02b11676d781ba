package e2e

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"sharevol.dev/sharevol/internal/testbed/guest"
	"sharevol.dev/sharevol/internal/testbed/scene"
)

// A template, owner, mode and archive, on a real export: the pod writes, the data is
// moved aside with the claim, and the parents that the template made are gone.
// nfs-subdir-external-provisioner #127, #91, #167, #272.
func (w world) testEveryParameter(t *testing.T) {
	w.class(t, "everything", func(class *storagev1.StorageClass) {
		for name, value := range map[string]string{
			"subDir":             "${pvc.metadata.namespace}/${pvc.metadata.labels['app']}/${pvc.metadata.name}",
			"subDirAllowSlashes": "true", "onDelete": "archive", "mountPermissions": "2750", "uid": "1000", "gid": "2000",
		} {
			class.Parameters[name] = value
		}
	})
	w.claim(t, "everything", "everything", func(claim *corev1.PersistentVolumeClaim) {
		claim.Labels = map[string]string{"app": "wiki"}
	})
	user := int64(1000)
	w.pod(t, "everything", "everything", "echo x >/data/file", func(pod *corev1.Pod) {
		pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{RunAsUser: &user}
	})
	w.running(t, "everything")
	pv := w.bound(t, "everything")
	dir := w.NFS.Dir(filepath.Join(scene.Share, "default", "wiki", "everything"))
	var stat unix.Stat_t
	check(t, unix.Stat(dir, &stat))
	if w.Dir(pv) != dir || stat.Mode != unix.S_IFDIR|0o2750 || stat.Uid != 1000 || stat.Gid != 2000 {
		t.Errorf("%s: mode %o, owner %d:%d", w.Dir(pv), stat.Mode, stat.Uid, stat.Gid)
	}
	check(t, w.DeletePod(t.Context(), "everything"))
	w.remove(t, "everything", pv)
	archived := w.NFS.Dir(filepath.Join(scene.Share, "archived-"+pv.Name, "default", "wiki", "everything", "file"))
	if got := read(t, archived); got != "x\n" {
		t.Errorf("archived %q", got)
	}
	if exists(t, w.NFS.Dir(filepath.Join(scene.Share, "default"))) {
		t.Error("the parents are still there")
	}
}

// Two claims that render to one directory: one is served, the other waits until the
// first one's volume is gone.
func (w world) testOneDirectory(t *testing.T) {
	w.class(t, "fixed", func(class *storagev1.StorageClass) { class.Parameters["subDir"] = "fixed" })
	w.claim(t, "first", "fixed", nil)
	first := w.bound(t, "first")
	file := filepath.Join(w.Dir(first), "data")
	check(t, os.WriteFile(file, []byte("precious"), 0o600))
	w.claim(t, "second", "fixed", nil)
	w.waitForEvent(t, "second", "ProvisioningFailed", "volume "+first.Name)
	check(t, w.DeleteClaim(t.Context(), "second"))
	w.claim(t, "second", "fixed", nil)
	if got := read(t, file); got != "precious" {
		t.Errorf("the first volume's data: %q", got)
	}
	w.remove(t, "first", first)
	second := w.bound(t, "second")
	if exists(t, file) {
		t.Error("the second volume has the first one's data")
	}
	w.remove(t, "second", second)
}

// The example, as it is.
func (w world) testSecret(t *testing.T) {
	_, err := w.Cluster.Kubectl(t.Context(), "apply", "-f", filepath.Join(scene.Examples, "secret", "storageclass.yaml"))
	check(t, err)
	w.claim(t, "secret", "sharevol-secret", nil)
	pv := w.bound(t, "secret")
	if pv.Spec.MountOptions != nil {
		t.Errorf("the volume has the mount options %q", pv.Spec.MountOptions)
	}
	w.remove(t, "secret", pv)
}

// The provisioner as an ordinary user without any capability: kubelet mounts the
// share, by the overlay as README says to change it.
func (w world) testUnprivileged(t *testing.T) {
	share := scene.Share + "/unprivileged"
	dir := w.NFS.Dir(share)
	check(t, os.MkdirAll(dir, 0o755))
	check(t, os.Chown(dir, 65532, 65532))
	overlay := filepath.Join(t.TempDir(), "manifests")
	check(t, os.CopyFS(overlay, os.DirFS(scene.Manifests)))
	edit(t, filepath.Join(overlay, "overlays", "unprivileged", "kustomization.yaml"), scene.Share+"=", share+"=", "path: "+scene.Share+"}", "path: "+share+"}")
	_, err := w.Cluster.Kubectl(t.Context(), "apply", "-k", filepath.Join(overlay, "overlays", "unprivileged"))
	check(t, err)
	_, err = w.Cluster.Kubectl(t.Context(), "rollout", "status", "deployment/sharevol-provisioner", "-n", guest.SystemNamespace, "--timeout=180s")
	check(t, err)
	status := read(t, fmt.Sprintf("/proc/%d/status", process(t, "/sharevol-provisioner").Pid))
	for _, want := range []string{"CapEff:\t0000000000000000", "Uid:\t65532"} {
		if !strings.Contains(status, want) {
			t.Errorf("no %s in\n%s", want, status)
		}
	}
	w.class(t, "unprivileged", func(class *storagev1.StorageClass) { class.Parameters["share"] = share })
	w.claim(t, "unprivileged", "unprivileged", nil)
	user := int64(65532)
	w.pod(t, "unprivileged", "unprivileged", "mkdir -m 500 /data/dir; echo x >/data/file", func(pod *corev1.Pod) {
		pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{RunAsUser: &user}
	})
	w.running(t, "unprivileged")
	pv := w.bound(t, "unprivileged")
	if info, err := os.Stat(w.Dir(pv)); err != nil || info.Mode() != fs.ModeDir|0o777 {
		t.Errorf("%v, %v", info, err)
	}
	check(t, w.DeletePod(t.Context(), "unprivileged"))
	w.remove(t, "unprivileged", pv)
	// A share that is not premounted is another provisioner's.
	w.claim(t, "elsewhere", "sharevol", nil)
	check(t, w.DeleteClaim(t.Context(), "elsewhere"))
	err = w.Wait(t.Context(), "the share to be empty", func(context.Context) (bool, string, error) {
		entries, err := os.ReadDir(dir)
		return len(entries) == 1 && entries[0].Name() == ".sharevol", fmt.Sprint(entries), err
	})
	check(t, err)
}

// edit replaces pairs of texts in a file; each must be there.
func edit(t *testing.T, path string, pairs ...string) {
	t.Helper()
	text := read(t, path)
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("no %q in %s", pairs[i], path)
		}
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	check(t, os.WriteFile(path, []byte(text), 0o600))
}
