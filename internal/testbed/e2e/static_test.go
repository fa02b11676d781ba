package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sharevol.dev/sharevol/internal/testbed/scene"
)

// Volumes made by hand: README's, as it is; one with mount options from a secret; and
// one that leads out of the share, of which the pod's events tell.
func (w world) testStatic(t *testing.T) {
	dir := w.NFS.Dir(filepath.Join(scene.Share, "teams/reports"))
	check(t, os.MkdirAll(dir, 0o755))
	check(t, os.WriteFile(filepath.Join(dir, "data"), []byte("theirs\n"), 0o644))
	example := filepath.Join(scene.Examples, "static", "volume.yaml")
	_, err := w.Cluster.Kubectl(t.Context(), "apply", "-f", example)
	check(t, err)
	reports := w.bound(t, "reports")
	w.pod(t, "reader", "reports", "grep theirs /data/data; echo ours >/data/more", nil)
	w.running(t, "reader")
	if got := read(t, filepath.Join(dir, "more")); got != "ours\n" {
		t.Errorf("the server sees %q", got)
	}

	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "options"}, StringData: map[string]string{"mountOptions": "ro,timeo=123"}}
	_, err = w.client.CoreV1().Secrets(metav1.NamespaceDefault).Create(t.Context(), secret, metav1.CreateOptions{})
	check(t, err)
	guarded := w.static(t, reports, "guarded", func(source *corev1.CSIPersistentVolumeSource) {
		source.NodePublishSecretRef = &corev1.SecretReference{Namespace: metav1.NamespaceDefault, Name: "options"}
	})
	w.pod(t, "guarded", "guarded", "grep theirs /data/data; ! touch /data/more", nil)
	mounts, err := scene.Mounts(scene.Target(w.running(t, "guarded"), guarded))
	if err != nil || len(mounts) != 1 || !strings.Contains(mounts[0], "timeo=123") {
		t.Errorf("mounts %q, %v", mounts, err)
	}

	w.static(t, reports, "hostile", func(source *corev1.CSIPersistentVolumeSource) {
		source.VolumeAttributes["subDir"] = "../reports"
		delete(source.VolumeAttributes, "server")
	})
	w.pod(t, "hostile", "hostile", "", nil)
	w.waitForEvent(t, "hostile", "FailedMount", "volume_context[server]: Required value")
	w.waitForEvent(t, "hostile", "FailedMount", "volume_context[subDir]")

	for _, pod := range []string{"reader", "guarded", "hostile"} {
		check(t, w.DeletePod(t.Context(), pod))
	}
	for _, claim := range []string{"reports", "guarded", "hostile"} {
		check(t, w.DeleteClaim(t.Context(), claim))
		_, err := w.Cluster.Kubectl(t.Context(), "delete", "pv", claim, "--timeout=60s")
		check(t, err)
	}
	if got := read(t, filepath.Join(dir, "data")); got != "theirs\n" {
		t.Errorf("of the volume's data is left %q", got)
	}
	check(t, os.RemoveAll(w.NFS.Dir(filepath.Join(scene.Share, "teams"))))
}

// static makes a volume by hand like another one, changed by change, and its claim.
func (w world) static(t *testing.T, like *corev1.PersistentVolume, name string, change func(*corev1.CSIPersistentVolumeSource)) *corev1.PersistentVolume {
	t.Helper()
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: *like.Spec.DeepCopy()}
	pv.Spec.ClaimRef, pv.Spec.CSI.VolumeHandle = nil, name
	change(pv.Spec.CSI)
	_, err := w.client.CoreV1().PersistentVolumes().Create(t.Context(), pv, metav1.CreateOptions{})
	check(t, err)
	w.claim(t, name, "", func(claim *corev1.PersistentVolumeClaim) { claim.Spec.VolumeName = name })
	return w.bound(t, name)
}
