package provision

import (
	"context"
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
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"sharevol.dev/sharevol/internal/share/sharetest"
	"sharevol.dev/sharevol/internal/volume"
)

// namesFixture is a controller that runs, with the names of csi-driver-nfs and of an
// adopted provisioner.
func namesFixture(t *testing.T, shares *sharetest.Shares, workers int, objects ...runtime.Object) *fake.Clientset {
	t.Helper()
	client := fake.NewClientset(objects...)
	runNames(t, client, shares, workers)
	return client
}

// runNames runs the controller until the test ends. Reactors are the client's before
// this: the controller may have done everything before the next statement of the test.
func runNames(t *testing.T, client *fake.Clientset, shares *sharetest.Shares, workers int) {
	t.Helper()
	caches, err := NewCaches(client, oldProvisioner)
	check(t, err)
	runController(t, client, Options{
		DriverName: csiDriverNFS, DefaultOnDelete: volume.Delete, Cluster: cluster, Shares: shares, Caches: caches,
		Adopted: []volume.Adoption{oldProvisioner},
	}, workers)
}

// runController runs the controller until the test ends, and waits then for the event
// of each volume that it saved, the last that the library does for one: Run does not
// wait for the library, and what makes an event reads the scheme that the next test's
// controller adds its types to.
func runController(t *testing.T, client *fake.Clientset, options Options, workers int) *Controller {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	options.Client = client
	c, provisioner := NewController(client, options, workers)
	options.Caches.Start(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		draining, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		check(t, provisioner.Drain(draining))
		waitUntil(t, "an event for each saved volume", func() bool { return told(t, client) })
	})
	return c
}

// told reports whether each volume that was saved has its event.
func told(t *testing.T, client *fake.Clientset) bool {
	events, err := client.CoreV1().Events(v1.NamespaceAll).List(context.Background(), metav1.ListOptions{})
	check(t, err)
	for _, action := range client.Actions() {
		create, ok := action.(clienttesting.CreateAction)
		if !ok || !action.Matches("create", "persistentvolumes") {
			continue
		}
		pv := create.GetObject().(*v1.PersistentVolume)
		if _, err := client.Tracker().Get(action.GetResource(), "", pv.Name); err != nil {
			continue // refused
		}
		if !slices.ContainsFunc(events.Items, func(e v1.Event) bool {
			return e.Reason == "ProvisioningSucceeded" && e.InvolvedObject.UID == pv.Spec.ClaimRef.UID
		}) {
			return false
		}
	}
	return true
}

func waitUntil(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// The library deletes the volumes of one name only: each name has what it takes, over
// one set of informers. What is nobody's of these stays as it is, finalizers too.
func TestEachNameIsServed(t *testing.T) {
	shares := sharetest.New(t)
	stock(shares)
	released := oldVolume(t, "pvc-1", "/srv/k8s/team-data-pvc-1", "nfs-delete")
	bound := oldVolume(t, "pvc-2", "/srv/k8s/team-data", "nfs-delete")
	bound.Status.Phase = v1.VolumeBound
	stranger := oldVolume(t, "pvc-3", "/srv/k8s/victim", "nfs-delete")
	stranger.Annotations[annProvisionedBy] = "example.com/another"
	elsewhere := oldVolume(t, "pvc-4", "/elsewhere/x", "nfs-delete")
	csi := oldVolume(t, "pvc-5", "", "nfs-csi")
	csi.Annotations[annProvisionedBy] = csiDriverNFS
	csi.Spec.PersistentVolumeSource = v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{
		Driver: csiDriverNFS, VolumeHandle: "nfs.example.com#export#pvc-1##",
		VolumeAttributes: map[string]string{"server": "nfs.example.com", "share": "/export", "subdir": "pvc-1"},
	}}
	objects := append(oldClasses(), released, bound, stranger, elsewhere, csi,
		&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "nfs-csi"}, Provisioner: csiDriverNFS, Parameters: map[string]string{"server": "nfs.example.com", "share": "/export"}})
	for name, class := range map[string]string{"old": "nfs-client", "new": "nfs-csi"} {
		provisioner := map[string]string{"nfs-client": oldProvisioner.Name, "nfs-csi": csiDriverNFS}[class]
		objects = append(objects, &v1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: name, UID: types.UID("uid-" + name), Annotations: map[string]string{annStorageProvisioner: provisioner}},
			Spec: v1.PersistentVolumeClaimSpec{
				StorageClassName: &class, AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteMany},
				Resources: v1.VolumeResourceRequirements{Requests: v1.ResourceList{v1.ResourceStorage: resource.MustParse("1Gi")}},
			},
		})
	}
	client := namesFixture(t, shares, 4, objects...)
	get := func(name string) (*v1.PersistentVolume, error) {
		return client.CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
	}
	for _, name := range []string{"pvc-1", "pvc-5"} {
		waitUntil(t, name+" is deleted", func() bool { _, err := get(name); return apierrors.IsNotFound(err) })
	}
	for name, provisioner := range map[string]string{"pvc-uid-old": oldProvisioner.Name, "pvc-uid-new": csiDriverNFS} {
		var pv *v1.PersistentVolume
		waitUntil(t, name+" is made", func() (made bool) { pv, _ = get(name); return pv != nil && pv.Name == name })
		if pv.Annotations[annProvisionedBy] != provisioner || (pv.Spec.NFS == nil) != (provisioner == csiDriverNFS) || !slices.Contains(pv.Finalizers, finalizer) {
			t.Errorf("made %v", pv)
		}
	}
	waitUntil(t, "the bound one has the finalizer", func() bool { pv, _ := get("pvc-2"); return slices.Contains(pv.Finalizers, finalizer) })
	waitUntil(t, "an event says what is wrong with the one elsewhere", func() bool {
		events, _ := client.CoreV1().Events("default").List(ctx, metav1.ListOptions{})
		return slices.ContainsFunc(events.Items, func(e v1.Event) bool {
			return e.Reason == "VolumeFailedDelete" && e.InvolvedObject.Name == "pvc-4" && strings.Contains(e.Message, "is not below nfs.example.com:/srv/k8s") &&
				strings.HasPrefix(e.Source.Component, oldProvisioner.Name)
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
	shares := blocked(t)
	var objects []runtime.Object
	for i := range 6 {
		pv := oldVolume(t, fmt.Sprint("pvc-", i), fmt.Sprint("/srv/k8s/", i), "nfs-delete")
		shares.Put(oldProvisioner.Share, volume.SubDir(fmt.Sprint(i)))
		csi := pv.DeepCopy()
		csi.Name = fmt.Sprint("csi-", i)
		csi.Annotations = map[string]string{annProvisionedBy: csiDriverNFS}
		csi.Spec.PersistentVolumeSource = v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{Driver: csiDriverNFS, VolumeHandle: fmt.Sprintf("nfs.example.com#export#%d", i)}}
		shares.Put(volume.Share{Server: "nfs.example.com", Path: "/export"}, volume.SubDir(fmt.Sprint(i)))
		objects = append(objects, pv, csi)
	}
	client := namesFixture(t, shares, 2, append(objects, oldClasses()...)...)
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
