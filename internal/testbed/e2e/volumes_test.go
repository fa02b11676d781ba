package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"sharevol.dev/sharevol/internal/testbed/guest"
	"sharevol.dev/sharevol/internal/testbed/scene"
)

func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Lstat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	check(t, err)
	return string(data)
}

// The examples, as they are: a claim, a pod that writes, another that reads, and
// all of it taken away again.
func (w world) testMainJob(t *testing.T) {
	for _, file := range []string{"storageclass.yaml", "claim.yaml", "pod.yaml"} {
		_, err := w.Cluster.Kubectl(t.Context(), "apply", "-f", filepath.Join(scene.Examples, file))
		check(t, err)
	}
	pv := w.bound(t, "notes")
	writer := w.running(t, "writer")
	dir, target := w.Dir(pv), scene.Target(writer, pv)
	info, err := os.Stat(dir)
	check(t, err)
	if info.Mode() != fs.ModeDir|0o777 {
		t.Errorf("mode of the directory: %v", info.Mode())
	}
	mounts, err := scene.Mounts(target)
	check(t, err)
	if source := scene.ServerName + ":" + scene.Share + "/" + pv.Name; len(mounts) != 1 || !strings.HasPrefix(mounts[0], source+" ") || !strings.Contains(mounts[0], " nfs4 ") || !strings.Contains(mounts[0], "vers=4.2") || !strings.Contains(mounts[0], "hard") {
		t.Errorf("mounts of %s: %q", target, mounts)
	}
	file := filepath.Join(dir, "hello.txt")
	content, err := w.File(t.Context(), file)
	check(t, err)
	if content != "hello from writer\n" {
		t.Errorf("the server sees %q", content)
	}
	w.pod(t, "reader", "notes", `test "$(cat /data/hello.txt)" = "hello from writer"; ! touch /data/x 2>/dev/null`, func(pod *corev1.Pod) {
		pod.Spec.Volumes[0].PersistentVolumeClaim.ReadOnly = true
	})
	reader := w.running(t, "reader")
	if mounts, err := scene.Mounts(scene.Target(reader, pv)); err != nil || len(mounts) != 1 || !strings.Contains(mounts[0], " ro,") {
		t.Errorf("the reader's mount: %q, %v", mounts, err)
	}
	for _, pod := range []*corev1.Pod{writer, reader} {
		check(t, w.DeletePod(t.Context(), pod.Name))
		if mounts, err := scene.Mounts(scene.Target(pod, pv)); err != nil || len(mounts) > 0 || exists(t, scene.Target(pod, pv)) {
			t.Errorf("left of %s: %q, %v", pod.Name, mounts, err)
		}
	}
	if !exists(t, file) {
		t.Error("unpublishing took the data away")
	}
	w.remove(t, "notes", pv)
	if exists(t, dir) {
		t.Error("the directory is still there")
	}
}

func (w world) testTwoClaimsAtOnce(t *testing.T) {
	names := []string{"one", "two"}
	for _, name := range names {
		w.claim(t, name, "sharevol", nil)
		group := int64(3000)
		w.pod(t, name, name, "echo "+name+" >/data/name", func(pod *corev1.Pod) {
			pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: &group}
		})
	}
	volumes := map[string]*corev1.PersistentVolume{}
	for _, name := range names {
		volumes[name] = w.bound(t, name)
		w.running(t, name)
		if got := read(t, filepath.Join(w.Dir(volumes[name]), "name")); got != name+"\n" {
			t.Errorf("in the directory of %s: %q", name, got)
		}
		var stat unix.Stat_t
		check(t, unix.Stat(w.Dir(volumes[name]), &stat))
		if stat.Gid != 3000 {
			t.Errorf("the directory of %s has the group %d, not the pod's fsGroup", name, stat.Gid)
		}
	}
	check(t, w.DeletePod(t.Context(), "one"))
	w.remove(t, "one", volumes["one"])
	if exists(t, w.Dir(volumes["one"])) || !exists(t, filepath.Join(w.Dir(volumes["two"]), "name")) {
		t.Error("deleting one claim did not remove exactly its own directory")
	}
	check(t, w.DeletePod(t.Context(), "two"))
	w.remove(t, "two", volumes["two"])
}

func (w world) testRetain(t *testing.T) {
	w.class(t, "retain", func(class *storagev1.StorageClass) { class.Parameters["onDelete"] = "retain" })
	w.claim(t, "kept", "retain", nil)
	pv := w.bound(t, "kept")
	file := filepath.Join(w.Dir(pv), "data")
	check(t, os.WriteFile(file, []byte("precious"), 0o600))
	w.remove(t, "kept", pv)
	if got := read(t, file); got != "precious" {
		t.Errorf("kept %q", got)
	}
}

// A volume that is to be kept by now loses the finalizer, and outlives its claim with its
// data. One that is to go again goes.
func (w world) testPolicyChanges(t *testing.T) {
	w.claim(t, "changing", "sharevol", nil)
	pv := w.bound(t, "changing")
	check(t, os.WriteFile(filepath.Join(w.Dir(pv), "data"), nil, 0o600))
	policy := func(policy corev1.PersistentVolumeReclaimPolicy) {
		patch := fmt.Appendf(nil, `{"spec":{"persistentVolumeReclaimPolicy":%q}}`, policy)
		_, err := w.client.CoreV1().PersistentVolumes().Patch(t.Context(), pv.Name, types.MergePatchType, patch, metav1.PatchOptions{})
		check(t, err)
	}
	until := func(what string, is func(*corev1.PersistentVolume) bool) {
		check(t, guest.WaitFor(t.Context(), what, 200*time.Millisecond, func(ctx context.Context) (bool, string, error) {
			live, err := w.client.CoreV1().PersistentVolumes().Get(ctx, pv.Name, metav1.GetOptions{})
			return err == nil && is(live), fmt.Sprint(live.Finalizers, live.Status.Phase, err), nil
		}))
	}
	finalized := func(live *corev1.PersistentVolume) bool {
		return slices.Contains(live.Finalizers, "external-provisioner.volume.kubernetes.io/finalizer")
	}
	policy(corev1.PersistentVolumeReclaimRetain)
	until("the finalizer to go", func(live *corev1.PersistentVolume) bool { return !finalized(live) })
	check(t, w.DeleteClaim(t.Context(), "changing"))
	until("the release", func(live *corev1.PersistentVolume) bool { return live.Status.Phase == corev1.VolumeReleased })
	if !exists(t, w.Dir(pv)) {
		t.Error("the directory of a volume that is to be kept is gone")
	}
	policy(corev1.PersistentVolumeReclaimDelete)
	check(t, w.VolumeGone(t.Context(), pv.Name))
	if exists(t, w.Dir(pv)) {
		t.Error("the directory is still there")
	}
}

// The library's finalizer: a volume that is deleted before its claim leaves nothing behind.
func (w world) testVolumeDeletedFirst(t *testing.T) {
	w.claim(t, "last", "sharevol", nil)
	pv := w.bound(t, "last")
	check(t, w.client.CoreV1().PersistentVolumes().Delete(t.Context(), pv.Name, metav1.DeleteOptions{}))
	time.Sleep(3 * time.Second) // for a provisioner that would not wait for the claim
	if !exists(t, w.Dir(pv)) {
		t.Error("the directory went while the claim was there")
	}
	w.remove(t, "last", pv)
	if exists(t, w.Dir(pv)) {
		t.Error("the directory is still there")
	}
}

// The provisioner's capabilities suffice for whatever pods leave behind.
func (w world) testOtherUsersFilesAreRemoved(t *testing.T) {
	w.claim(t, "users", "sharevol", nil)
	first, second := int64(1000), int64(2000)
	w.pod(t, "users", "users", "echo x >/data/sticky/file; mkdir -m 700 /data/private; echo x >/data/private/file", func(pod *corev1.Pod) {
		pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{RunAsUser: &second}
		pod.Spec.InitContainers = []corev1.Container{{
			Name: "init", Image: pod.Spec.Containers[0].Image, VolumeMounts: pod.Spec.Containers[0].VolumeMounts,
			Command:         []string{"sh", "-ec", "mkdir /data/sticky; chmod 1777 /data/sticky"},
			SecurityContext: &corev1.SecurityContext{RunAsUser: &first},
		}}
	})
	w.running(t, "users")
	pv := w.bound(t, "users")
	check(t, w.DeletePod(t.Context(), "users"))
	w.remove(t, "users", pv)
	if exists(t, w.Dir(pv)) {
		t.Error("the directory is still there")
	}
}

func (w world) testWaitForFirstConsumer(t *testing.T) {
	w.class(t, "late", func(class *storagev1.StorageClass) {
		mode := storagev1.VolumeBindingWaitForFirstConsumer
		class.VolumeBindingMode = &mode
		class.AllowedTopologies = []corev1.TopologySelectorTerm{{MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{
			{Key: corev1.LabelHostname, Values: []string{guest.NodeName}},
		}}}
	})
	w.claim(t, "late", "late", nil)
	w.pod(t, "late", "late", "echo x >/data/file", nil)
	w.running(t, "late")
	pv := w.bound(t, "late")
	if pv.Spec.NodeAffinity == nil {
		t.Error("the class's topologies are not in the volume")
	}
	check(t, w.DeletePod(t.Context(), "late"))
	w.remove(t, "late", pv)
}

// A claim whose node is gone goes back to the scheduler.
func (w world) testNodeIsGone(t *testing.T) {
	const selected = "volume.kubernetes.io/selected-node"
	w.claim(t, "moved", "late", func(claim *corev1.PersistentVolumeClaim) {
		claim.Annotations = map[string]string{selected: "gone"}
	})
	claims := w.client.CoreV1().PersistentVolumeClaims(metav1.NamespaceDefault)
	err := w.Wait(t.Context(), "the claim to go back to the scheduler", func(ctx context.Context) (bool, string, error) {
		claim, err := claims.Get(ctx, "moved", metav1.GetOptions{})
		return err == nil && claim.Annotations[selected] == "", "", err
	})
	check(t, err)
	check(t, w.DeleteClaim(t.Context(), "moved"))
}

// The versions of NFS that README names. (4.2 is the other tests'.) The export takes
// calls from reserved ports only, as exports do by default.
func (w world) testVersions(t *testing.T) {
	versions := []struct{ name, share, options string }{
		{"v40", scene.Share, "nfsvers=4.0"},
		{"v41", scene.Share, "nfsvers=4.1"},
		{"v3", w.NFS.Dir(scene.Share), "nfsvers=3,nolock"}, // a version without a root export: the server's own path
	}
	for _, v := range versions {
		w.class(t, v.name, func(class *storagev1.StorageClass) {
			class.Parameters["share"], class.MountOptions = v.share, []string{v.options}
		})
		w.claim(t, v.name, v.name, nil)
		w.pod(t, v.name, v.name, "echo "+v.name+" >/data/name", nil)
	}
	for _, v := range versions {
		pv := w.bound(t, v.name)
		dir := w.NFS.Dir(filepath.Join(scene.Share, pv.Name))
		pod := w.running(t, v.name)
		mounts, err := scene.Mounts(scene.Target(pod, pv))
		version, _, _ := strings.Cut(strings.TrimPrefix(v.options, "nfs"), ",")
		if err != nil || len(mounts) != 1 || !strings.Contains(mounts[0], ","+version+",") {
			t.Errorf("%s: mounts %q, %v", v.name, mounts, err)
		}
		if got := read(t, filepath.Join(dir, "name")); got != v.name+"\n" {
			t.Errorf("the server sees %q", got)
		}
		check(t, w.DeletePod(t.Context(), v.name))
		w.remove(t, v.name, pv)
		if exists(t, dir) {
			t.Errorf("%s: the directory is still there", v.name)
		}
	}
}

// The kernel shows the mounts of one server under the name that came first.
func (w world) testTwoNamesOfOneServer(t *testing.T) {
	w.class(t, "other-name", func(class *storagev1.StorageClass) { class.Parameters["server"] = scene.OtherName })
	volumes := map[string]*corev1.PersistentVolume{}
	for claim, class := range map[string]string{"by-one-name": "sharevol", "by-other-name": "other-name"} {
		w.claim(t, claim, class, nil)
		volumes[claim] = w.bound(t, claim)
		w.pod(t, claim, claim, "echo "+claim+" >/data/name", nil)
		pod := w.running(t, claim)
		if mounts, err := scene.Mounts(scene.Target(pod, volumes[claim])); err != nil || len(mounts) != 1 || !strings.Contains(mounts[0], volumes[claim].Name+" ") {
			t.Errorf("%s: mounts %q, %v", claim, mounts, err)
		}
	}
	for claim, pv := range volumes {
		if got := read(t, filepath.Join(w.Dir(pv), "name")); got != claim+"\n" {
			t.Errorf("in the directory of %s: %q", claim, got)
		}
		check(t, w.DeletePod(t.Context(), claim))
		w.remove(t, claim, pv)
	}
}

// A volume directory that was replaced by a link would mount another one.
func (w world) testLinkOnTheServer(t *testing.T) {
	w.claim(t, "victim", "sharevol", nil)
	w.claim(t, "linked", "sharevol", nil)
	victim, pv := w.bound(t, "victim"), w.bound(t, "linked")
	file := filepath.Join(w.Dir(victim), "data")
	check(t, os.WriteFile(file, []byte("precious"), 0o600))
	check(t, os.Remove(w.Dir(pv)))
	check(t, os.Symlink(victim.Name, w.Dir(pv)))
	w.pod(t, "linked", "linked", "true", nil)
	w.waitForEvent(t, "linked", "FailedMount", "the server resolved the path to another one")
	pod, err := w.client.CoreV1().Pods(metav1.NamespaceDefault).Get(t.Context(), "linked", metav1.GetOptions{})
	check(t, err)
	if mounts, err := scene.Mounts(scene.Target(pod, pv)); err != nil || len(mounts) > 0 {
		t.Errorf("mounted %q, %v", mounts, err)
	}
	check(t, w.DeletePod(t.Context(), "linked"))
	check(t, w.DeleteClaim(t.Context(), "linked"))
	w.waitForEvent(t, pv.Name, "VolumeFailedDelete", "a link or a file, not a directory: left alone")
	if got := read(t, file); got != "precious" {
		t.Errorf("of the victim's data is left: %q", got)
	}
	check(t, os.Remove(w.Dir(pv))) // an administrator's; the volume goes with the next try
	check(t, w.VolumeGone(t.Context(), pv.Name))
	w.remove(t, "victim", victim)
}
