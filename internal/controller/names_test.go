package controller

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"

	"sharevol.dev/sharevol/internal/cluster"
	"sharevol.dev/sharevol/internal/cluster/clustertest"
	"sharevol.dev/sharevol/internal/provision"
	"sharevol.dev/sharevol/internal/share/sharetest"
	"sharevol.dev/sharevol/internal/volume"
)

// The library deletes the volumes of one name only: each name has what it takes, over
// one set of informers. What is nobody's of these stays as it is, finalizers too.
func TestEachNameIsServed(t *testing.T) {
	shares := sharetest.New(t)
	for path, dirs := range map[string][]volume.SubDir{"/srv/k8s": {"team-data-pvc-1", "victim", "team-data"}, "/export": {"pvc-1", "victim"}} {
		for _, dir := range dirs {
			shares.Put(volume.Share{Server: "nfs.example.com", Path: path}, dir)
		}
	}
	released := clustertest.AdoptedVolume("pvc-1", "/srv/k8s/team-data-pvc-1", "nfs-delete")
	bound := clustertest.AdoptedVolume("pvc-2", "/srv/k8s/team-data", "nfs-delete")
	bound.Status.Phase = v1.VolumeBound
	stranger := clustertest.AdoptedVolume("pvc-3", "/srv/k8s/victim", "nfs-delete")
	stranger.Annotations[cluster.AnnProvisionedBy] = "example.com/another"
	elsewhere := clustertest.AdoptedVolume("pvc-4", "/elsewhere/x", "nfs-delete")
	csi := clustertest.AdoptedVolume("pvc-5", "", "nfs-csi")
	csi.Annotations[cluster.AnnProvisionedBy] = csiDriverNFS
	csi.Spec.PersistentVolumeSource = v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{
		Driver: csiDriverNFS, VolumeHandle: "nfs.example.com#export#pvc-1##",
		VolumeAttributes: map[string]string{"server": "nfs.example.com", "share": "/export", "subdir": "pvc-1"},
	}}
	objects := append(clustertest.AdoptedClasses(), released, bound, stranger, elsewhere, csi,
		&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "nfs-csi"}, Provisioner: csiDriverNFS, Parameters: map[string]string{"server": "nfs.example.com", "share": "/export"}})
	for name, class := range map[string]string{"old": "nfs-client", "new": "nfs-csi"} {
		provisioner := map[string]string{"nfs-client": clustertest.Adopted.Name, "nfs-csi": csiDriverNFS}[class]
		objects = append(objects, &v1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: name, UID: types.UID("uid-" + name), Annotations: map[string]string{annStorageProvisioner: provisioner}},
			Spec: v1.PersistentVolumeClaimSpec{
				StorageClassName: &class, AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteMany},
				Resources: v1.VolumeResourceRequirements{Requests: v1.ResourceList{v1.ResourceStorage: resource.MustParse("1Gi")}},
			},
		})
	}
	f := newFixture(t, shares, adoptedNames, 4, objects...)
	f.run(t)
	client := f.client
	get := func(name string) (*v1.PersistentVolume, error) {
		return client.CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
	}
	for _, name := range []string{"pvc-1", "pvc-5"} {
		waitUntil(t, name+" is deleted", func() bool { _, err := get(name); return apierrors.IsNotFound(err) })
	}
	for name, provisioner := range map[string]string{"pvc-uid-old": clustertest.Adopted.Name, "pvc-uid-new": csiDriverNFS} {
		var pv *v1.PersistentVolume
		waitUntil(t, name+" is made", func() (made bool) { pv, _ = get(name); return pv != nil && pv.Name == name })
		if pv.Annotations[cluster.AnnProvisionedBy] != provisioner || (pv.Spec.NFS == nil) != (provisioner == csiDriverNFS) || !slices.Contains(pv.Finalizers, provision.Finalizer) {
			t.Errorf("made %v", pv)
		}
	}
	waitUntil(t, "the bound one has the finalizer", func() bool { pv, _ := get("pvc-2"); return slices.Contains(pv.Finalizers, provision.Finalizer) })
	waitUntil(t, "an event says what is wrong with the one elsewhere", func() bool {
		events, _ := client.CoreV1().Events("default").List(ctx, metav1.ListOptions{})
		return slices.ContainsFunc(events.Items, func(e v1.Event) bool {
			return e.Reason == "VolumeFailedDelete" && e.InvolvedObject.Name == "pvc-4" && strings.Contains(e.Message, "is not below nfs.example.com:/srv/k8s") &&
				strings.HasPrefix(e.Source.Component, clustertest.Adopted.Name)
		})
	})
	if pv, err := get("pvc-3"); err != nil || len(pv.Finalizers) > 0 {
		t.Errorf("the stranger's is %v, %v", pv, err)
	}
	left := shares.Dirs()
	for dir, want := range map[string]bool{
		"nfs.example.com:/srv/k8s/team-data-pvc-1": false, "nfs.example.com:/export/pvc-1": false,
		"nfs.example.com:/srv/k8s/victim": true, "nfs.example.com:/srv/k8s/team-data": true, "nfs.example.com:/export/victim": true,
		"nfs.example.com:/srv/k8s/team-old-pvc-uid-old": true, "nfs.example.com:/export/pvc-uid-new": true,
	} {
		if slices.Contains(left, dir) != want {
			t.Errorf("%s: there %v", dir, !want)
		}
	}
	for _, action := range client.Actions() {
		if update, ok := action.(clienttesting.UpdateAction); ok {
			if pv, ok := update.GetObject().(*v1.PersistentVolume); ok && pv.Name == "pvc-3" {
				t.Error("the stranger's is written")
			}
		}
	}
}

// All names together have the workers that were asked for, and no more.
func TestNamesShareTheWorkers(t *testing.T) {
	shares := sharetest.New(t)
	shares.Block = make(chan struct{})
	var objects []runtime.Object
	for i := range 6 {
		pv := clustertest.AdoptedVolume(fmt.Sprint("pvc-", i), fmt.Sprint("/srv/k8s/", i), "nfs-delete")
		shares.Put(clustertest.Adopted.Share, volume.SubDir(fmt.Sprint(i)))
		csi := pv.DeepCopy()
		csi.Name = fmt.Sprint("csi-", i)
		csi.Annotations = map[string]string{cluster.AnnProvisionedBy: csiDriverNFS}
		csi.Spec.PersistentVolumeSource = v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{Driver: csiDriverNFS, VolumeHandle: fmt.Sprintf("nfs.example.com#export#%d", i)}}
		shares.Put(volume.Share{Server: "nfs.example.com", Path: "/export"}, volume.SubDir(fmt.Sprint(i)))
		objects = append(objects, pv, csi)
	}
	f := newFixture(t, shares, adoptedNames, 2, append(objects, clustertest.AdoptedClasses()...)...)
	f.run(t)
	client := f.client
	waitUntil(t, "two calls run", func() bool { return shares.Waiting() == 2 })
	for range 50 {
		if n := shares.Waiting(); n > 2 {
			t.Fatalf("%d at a time", n)
		}
		time.Sleep(5 * time.Millisecond)
	}
	close(shares.Block)
	waitUntil(t, "all are deleted", func() bool {
		list, err := client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
		return err == nil && len(list.Items) == 0
	})
}
