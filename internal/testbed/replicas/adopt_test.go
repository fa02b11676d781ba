package replicas

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sharevol.dev/sharevol/internal/testbed/guest"
)

// The volumes of both peers, in every form that they have written, are deleted as they would delete them, but
// nothing else is; claims of their classes are served with volumes that they could serve and delete. What
// was written by a hostile hand is left alone, and an event says why.
func TestVolumesOfThePeersAreTakenOver(t *testing.T) {
	ctx, lab := theLab(t, 6*time.Minute)
	p := newPeers(ctx, t, lab)
	installRBAC(ctx, t, p)
	ordinary := putOrdinary(ctx, t, p)
	hostile := putHostile(ctx, t, p)
	provisioner := p.adopter(t, "a")
	refusesBesideALiveLeader(ctx, t, p, provisioner)
	start(ctx, t, provisioner)
	for _, name := range ordinary {
		check(t, p.volumeGone(ctx, name))
	}
	p.leftAlone(ctx, t, hostile)
	checkShares(t, p)
	kept, err := p.client.CoreV1().PersistentVolumes().Get(ctx, "hostile-up", metav1.GetOptions{})
	check(t, err)
	// The library has written it back from a cache that has no managedFields.
	if !strings.Contains(strings.Join(kept.Finalizers, " "), ourFinalizer) || len(kept.ManagedFields) < 2 {
		t.Errorf("the volume has the finalizers %q and the managedFields %v", kept.Finalizers, kept.ManagedFields)
	}
	stranger, err := p.client.CoreV1().PersistentVolumes().Get(ctx, "strangers", metav1.GetOptions{})
	check(t, err)
	if strings.Contains(strings.Join(stranger.Finalizers, " "), ourFinalizer) {
		t.Errorf("another provisioner's volume has the finalizers %q", stranger.Finalizers)
	}
	newClaims(ctx, t, p)

	// A volume of a whole share keeps all those below it from being deleted: not before now.
	roots := map[string]string{"hostile-slash": "server#share#subDir", "hostile-root": "is not below"}
	p.put(ctx, t, "hostile-slash", csiDriverNFS, "nfs-csi", "", csiSource("/", "server", p.server, "share", sharePath, "subdir", "/"))
	p.put(ctx, t, "hostile-root", nfsSubdir, "nfs-delete", "", p.nfsSource(oldShare))
	p.leftAlone(ctx, t, roots)
	log, err := os.ReadFile(provisioner.Log())
	check(t, err)
	if bytes.Contains(log, []byte("forbidden")) {
		t.Error("something was forbidden")
	}
	// What is left alone must not keep other tests of the lab waiting.
	for _, volumes := range []map[string]string{hostile, roots, {"strangers": ""}} {
		for name := range volumes {
			check(t, p.dropVolume(ctx, name))
		}
	}
	endsWhenTheOldOneStarts(ctx, t, p, provisioner)
}

// putOrdinary puts volumes in every form that the peers have written, and returns their names.
func putOrdinary(ctx context.Context, t *testing.T, p *peers) []string {
	t.Helper()
	const share = "srv/volumes"
	var names []string
	csi := func(name, dir, handle string, attributes ...string) {
		p.put(ctx, t, name, csiDriverNFS, "nfs-csi", p.in(dir), csiSource(p.server+handle, append(attributes, "server", p.server)...), ourFinalizer)
		names = append(names, name)
	}
	csi("csi-5-fields", "v5", "#"+share+"#v5##", "share", sharePath, "subdir", "v5", "mountPermissions", "0")
	csi("csi-4-fields", "a/v4", "#"+share+"#a/v4#csi-4-fields", "SHARE", sharePath, "subDir", "/a/v4/")
	csi("csi-3-fields", "v3", "#"+share+"#v3", "share", sharePath+"/v3")
	csi("csi-old", "v0", "/"+share+"/v0", "share", sharePath+"/v0")
	csi("csi-archive", "b/va", "#"+share+"#b/va#csi-archive#archive", "share", sharePath, "subDir", "b/va", "onDelete", "archive")
	csi("csi-retain", "vr", "#"+share+"#vr##retain", "share", sharePath, "subdir", "vr")
	for name, class := range map[string]string{"old-archive": "nfs-client", "old-delete": "nfs-delete", "old-class-gone": "no-such-class"} {
		p.put(ctx, t, name, nfsSubdir, class, p.was("ns/"+name), p.nfsSource(oldShare+"/ns/"+name))
		names = append(names, name)
	}
	return names
}

// putHostile puts volumes that must be left alone, and returns what an event must say of each.
func putHostile(ctx context.Context, t *testing.T, p *peers) map[string]string {
	t.Helper()
	csi := func(name, dir, subDir, handle string) {
		at := ""
		if dir != "" {
			at = p.in(dir)
		}
		p.put(ctx, t, name, csiDriverNFS, "nfs-csi", at, csiSource(p.server+"#srv/volumes#"+handle, "server", p.server, "share", sharePath, "subdir", subDir))
	}
	csi("hostile-up", "", "../victim", "../victim##")
	csi("hostile-backslash", "", `..\victim`, `..\victim##`)
	csi("hostile-6", "six", "six", "six#six##")
	csi("hostile-other", "other", "other", "victim##")
	p.put(ctx, t, "hostile-csi", nfsSubdir, "nfs-delete", p.in("victim"), csiSource(p.server+"#srv/volumes#victim##", "server", p.server, "share", sharePath, "subdir", "victim"))
	p.put(ctx, t, "hostile-share", nfsSubdir, "nfs-delete", "", p.nfsSource("/etc"))
	p.put(ctx, t, "hostile-shared", nfsSubdir, "nfs-delete", p.was("shared"), p.nfsSource(oldShare+"/shared"))
	p.put(ctx, t, "strangers", "example.com/another", "nfs-delete", p.was("shared/below"), p.nfsSource(oldShare+"/shared/below"))
	return map[string]string{
		"hostile-up": `".." path component`, "hostile-backslash": "backslash", "hostile-6": "server#share#subDir", "hostile-other": "names the directory",
		"hostile-csi": "is no nfs volume", "hostile-share": "is not below", "hostile-shared": "is in use by volume strangers",
	}
}

// checkShares checks where the volumes' data is: gone, archived or untouched.
func checkShares(t *testing.T, p *peers) {
	t.Helper()
	for path, want := range map[string]string{
		p.in("v5"): "", p.in("a/v4"): "", p.in("v3"): "", p.in("v0"): "", p.in("b/va"): "", p.was("ns/old-archive"): "", p.was("ns/old-delete"): "", p.was("ns/old-class-gone"): "",
		p.in("archived-csi-archive/b/va"): "csi-archive", p.in("vr"): "csi-retain",
		p.was("archived-old-archive/ns/old-archive"): "old-archive", p.was("archived-old-class-gone/ns/old-class-gone"): "old-class-gone",
		p.in("six"): "hostile-6", p.in("other"): "hostile-other", p.in("victim"): "hostile-csi", p.was("shared"): "hostile-shared", p.was("shared/below"): "strangers",
	} {
		if got, err := os.ReadFile(filepath.Join(path, marker)); string(got) != want || (err == nil) != (want != "") {
			t.Errorf("%s has %q, %v; want %q", path, got, err, want)
		}
	}
}

// newClaims has claims of the peers' classes served, used and deleted.
func newClaims(ctx context.Context, t *testing.T, p *peers) {
	t.Helper()
	for name, c := range map[string]struct {
		class, dir, after string
		inTree            bool
	}{
		"by-csi":    {"nfs-csi", filepath.Join(p.share, p.name, "by-csi"), "", false},
		"by-old":    {"nfs-client", filepath.Join(p.old, p.name, "by-old"), filepath.Join(p.old, "archived-%s", p.name, "by-old"), true},
		"by-delete": {"nfs-delete", filepath.Join(p.old, p.name+"-by-delete-%s"), "", true},
	} {
		claim, err := p.client.CoreV1().PersistentVolumeClaims(p.name).Create(ctx, &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: corev1.PersistentVolumeClaimSpec{
				StorageClassName: &c.class, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany},
				Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")}},
			},
		}, metav1.CreateOptions{})
		check(t, err)
		volume, err := p.volume(ctx, name)
		check(t, err)
		named := func(path string) string { return strings.ReplaceAll(path, "%s", volume) }
		pv, err := p.client.CoreV1().PersistentVolumes().Get(ctx, volume, metav1.GetOptions{})
		check(t, err)
		if (pv.Spec.NFS != nil) != c.inTree || volume != "pvc-"+string(claim.UID) || !strings.Contains(strings.Join(pv.Finalizers, " "), ourFinalizer) {
			t.Errorf("%s has the volume %+v with %q", name, pv.Spec.PersistentVolumeSource, pv.Finalizers)
		}
		check(t, os.WriteFile(filepath.Join(named(c.dir), marker), []byte(name), 0o600))
		check(t, p.client.CoreV1().PersistentVolumeClaims(p.name).Delete(ctx, name, metav1.DeleteOptions{}))
		check(t, p.volumeGone(ctx, volume))
		if _, err := os.Lstat(named(c.dir)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is there: %v", named(c.dir), err)
		}
		if c.after == "" {
			continue
		}
		if got, err := os.ReadFile(filepath.Join(named(c.after), marker)); string(got) != name {
			t.Errorf("%s has %q, %v", named(c.after), got, err)
		}
	}
	if _, err := p.client.CoreV1().Endpoints(guest.SystemNamespace).Get(ctx, nfsSubdirLock, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("a lock of the old name: %v", err)
	}
}
