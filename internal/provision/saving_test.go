package provision

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"

	"sharevol.dev/sharevol/internal/share/fakeshare"
	"sharevol.dev/sharevol/internal/volume"
)

// The API server does not take the volume, because of a webhook or a policy: the claim's
// user is told, and the claim is looked at again when it changes.
func TestVolumeThatCanNotBeSaved(t *testing.T) {
	options := request1()
	options.StorageClass.Parameters["subDir"] = "${pvc.metadata.labels['what']}-${pv.metadata.name}"
	options.PVC.Labels = map[string]string{"what": "plain"}
	options.PVC.Spec.StorageClassName = &options.StorageClass.Name
	options.PVC.Annotations = map[string]string{"volume.kubernetes.io/storage-provisioner": driver, "volume.beta.kubernetes.io/storage-provisioner": driver}
	client := fake.NewClientset(options.StorageClass, options.PVC)
	var refused atomic.Int32
	client.PrependReactor("create", "persistentvolumes", func(action clienttesting.Action) (bool, runtime.Object, error) {
		pv := action.(clienttesting.CreateAction).GetObject().(*v1.PersistentVolume)
		if strings.HasPrefix(pv.Spec.CSI.VolumeAttributes["subDir"], "labelled-") {
			return false, nil, nil
		}
		refused.Add(1)
		return true, nil, errors.New("admission webhook denied the request: volumes need a label")
	})
	caches, err := NewCaches(client)
	check(t, err)
	shares := &fakeshare.Shares{}
	runController(t, client, Options{DriverName: driver, DefaultOnDelete: volume.Delete, Cluster: cluster, Shares: shares, Caches: caches}, 2)
	eventually(t, "a warning on the claim", func() bool {
		events, err := client.CoreV1().Events(v1.NamespaceAll).List(ctx, metav1.ListOptions{})
		check(t, err)
		return slices.ContainsFunc(events.Items, func(e v1.Event) bool {
			return e.Type == v1.EventTypeWarning && e.InvolvedObject.Name == options.PVC.Name && strings.Contains(e.Message, "volumes need a label")
		})
	})
	if _, found, _ := caches.volumes.GetStore().GetByKey("pvc-1"); found {
		t.Error("a volume that was never saved is in the cache")
	}
	// A change of the claim is acted on at once.
	claim := options.PVC.DeepCopy()
	claim.Labels = map[string]string{"what": "labelled"}
	_, err = client.CoreV1().PersistentVolumeClaims(claim.Namespace).Update(ctx, claim, metav1.UpdateOptions{})
	check(t, err)
	eventually(t, "the volume", func() bool {
		_, err := client.CoreV1().PersistentVolumes().Get(ctx, "pvc-1", metav1.GetOptions{})
		return err == nil
	})
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %s", what)
		}
	}
}

// A volume is deleted as it was when its directory was done with, or not at all. Others'
// finalizers stay.
func TestVolumeIsDeletedAsItWas(t *testing.T) {
	now := metav1.Now()
	volume := func(uid types.UID, version string, finalizers ...string) *v1.PersistentVolume {
		return &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pvc-1", UID: uid, ResourceVersion: version, Finalizers: finalizers}}
	}
	deleted := func(pv *v1.PersistentVolume) *v1.PersistentVolume {
		pv.DeletionTimestamp = &now
		return pv
	}
	for name, test := range map[string]struct {
		seen, live, left *v1.PersistentVolume
		fails            bool
	}{
		"ours":                 {seen: volume("a", "1", finalizer), live: volume("a", "1", finalizer)},
		"without finalizers":   {seen: volume("a", "1"), live: volume("a", "1")},
		"others' finalizers":   {seen: volume("a", "1", "x", finalizer, "y"), live: volume("a", "1", "x", finalizer, "y"), left: deleted(volume("a", "3", "x", "y"))},
		"deleted before":       {seen: deleted(volume("a", "1", finalizer)), live: deleted(volume("a", "1", finalizer))},
		"gone":                 {seen: volume("a", "1", finalizer)},
		"changed since":        {seen: volume("a", "1", finalizer), live: volume("a", "2", finalizer), left: volume("a", "2", finalizer), fails: true},
		"changed, ours is off": {seen: volume("a", "1"), live: volume("a", "2"), left: volume("a", "2"), fails: true},
		"replaced":             {seen: volume("a", "1"), live: volume("b", "1"), left: volume("b", "1"), fails: true},
		"not done with":        {live: volume("a", "1", finalizer), left: volume("a", "1", finalizer), fails: true},
	} {
		client := careful(t, test.live)
		saver := saving{Interface: client, unsaved: &unsaved{}, outgoing: newOutgoing()}
		if test.seen != nil {
			saver.outgoing.put(test.seen)
		}
		err := saver.CoreV1().PersistentVolumes().Delete(ctx, "pvc-1", metav1.DeleteOptions{})
		if (err != nil) != test.fails {
			t.Errorf("%s: %v", name, err)
		}
		if hidden := test.seen != nil && saver.outgoing.isHidden(test.seen); hidden != (test.live != nil && !test.fails) {
			t.Errorf("%s: hidden %t", name, hidden)
		}
		live, err := client.CoreV1().PersistentVolumes().Get(ctx, "pvc-1", metav1.GetOptions{})
		switch {
		case test.left == nil && !apierrors.IsNotFound(err):
			t.Errorf("%s: is there still: %v, %v", name, live, err)
		case test.left != nil && (err != nil || live.UID != test.left.UID || !slices.Equal(live.Finalizers, test.left.Finalizers) || live.DeletionTimestamp.IsZero() != test.left.DeletionTimestamp.IsZero()):
			t.Errorf("%s: %v, %v", name, live, err)
		}
	}
}

// careful is an API server with at most one volume, which minds versions, preconditions
// and finalizers.
func careful(t *testing.T, pv *v1.PersistentVolume) *fake.Clientset {
	client := fake.NewClientset()
	volumes := schema.GroupVersionResource{Version: "v1", Resource: "persistentvolumes"}
	if pv != nil {
		check(t, client.Tracker().Create(volumes, pv, ""))
	}
	conflict := apierrors.NewConflict(volumes.GroupResource(), "pvc-1", errors.New("has changed"))
	client.PrependReactor("update", "persistentvolumes", func(action clienttesting.Action) (bool, runtime.Object, error) {
		object := action.(clienttesting.UpdateAction).GetObject().(*v1.PersistentVolume).DeepCopy()
		switch {
		case pv == nil:
			return true, nil, apierrors.NewNotFound(volumes.GroupResource(), "pvc-1")
		case object.UID != pv.UID || object.ResourceVersion != pv.ResourceVersion:
			return true, nil, conflict
		case object.DeletionTimestamp != nil && len(object.Finalizers) == 0:
			return true, object, client.Tracker().Delete(volumes, "", "pvc-1")
		}
		object.ResourceVersion += "'"
		pv = object
		return true, object, client.Tracker().Update(volumes, object, "")
	})
	client.PrependReactor("delete", "persistentvolumes", func(action clienttesting.Action) (bool, runtime.Object, error) {
		only := action.(clienttesting.DeleteActionImpl).DeleteOptions.Preconditions
		switch {
		case pv == nil:
			return true, nil, apierrors.NewNotFound(volumes.GroupResource(), "pvc-1")
		case only == nil || *only.UID != pv.UID || *only.ResourceVersion != pv.ResourceVersion:
			return true, nil, conflict
		case pv.DeletionTimestamp != nil:
			return true, nil, errors.New("deleted a second time")
		case len(pv.Finalizers) == 0:
			return true, nil, client.Tracker().Delete(volumes, "", "pvc-1")
		}
		leaving, now := pv.DeepCopy(), metav1.Now()
		leaving.DeletionTimestamp = &now
		return true, nil, client.Tracker().Update(volumes, leaving, "")
	})
	return client
}

// The controller library does not see a volume that it has deleted, whatever the cache
// has, but one that has come by its name since.
func TestDeletedVolumeIsHiddenUntilTheCacheKnows(t *testing.T) {
	old := &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pvc-1", UID: "a"}}
	client := fake.NewClientset(old)
	caches, err := NewCaches(client)
	check(t, err)
	all := newOutgoing()
	informer := &kicked{SharedIndexInformer: caches.volumes, mine: volumeOf(driver), unsaved: &unsaved{}, outgoing: all}
	_, err = informer.AddEventHandlerWithResyncPeriod(cache.ResourceEventHandlerFuncs{}, 0)
	check(t, err)
	caches.Start(t.Context())
	seen := func() bool {
		_, exists, err := informer.GetStore().GetByKey("pvc-1")
		check(t, err)
		return exists
	}
	eventually(t, "volume in the cache", seen)
	all.hide("pvc-1", "a")
	if seen() || !caches.hasVolume("pvc-1") {
		t.Errorf("seen %t, in the cache %t", seen(), caches.hasVolume("pvc-1"))
	}
	check(t, client.CoreV1().PersistentVolumes().Delete(ctx, "pvc-1", metav1.DeleteOptions{}))
	eventually(t, "end of it", func() bool { return !all.isHidden(old) })
	all.hide("pvc-1", "a")
	replaced := old.DeepCopy()
	replaced.UID = "b"
	_, err = client.CoreV1().PersistentVolumes().Create(ctx, replaced, metav1.CreateOptions{})
	check(t, err)
	eventually(t, "volume that has come since", seen)
}
