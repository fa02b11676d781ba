package provision

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// A volume is deleted as it was when its directory was done with, or not at all. Others'
// finalizers stay. Where it has changed, it is confirmed anew.
func TestVolumeIsDeletedAsItWas(t *testing.T) {
	now := metav1.Now()
	volume := func(uid types.UID, version string, finalizers ...string) *v1.PersistentVolume {
		return &v1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: "pvc-1", UID: uid, ResourceVersion: version, Finalizers: finalizers},
			Spec:       v1.PersistentVolumeSpec{PersistentVolumeReclaimPolicy: v1.PersistentVolumeReclaimDelete},
			Status:     v1.PersistentVolumeStatus{Phase: v1.VolumeReleased},
		}
	}
	deleted := func(pv *v1.PersistentVolume) *v1.PersistentVolume {
		pv.DeletionTimestamp = &now
		return pv
	}
	kept := volume("a", "2", Finalizer)
	kept.Spec.PersistentVolumeReclaimPolicy = v1.PersistentVolumeReclaimRetain
	for name, test := range map[string]struct {
		seen, live, left *v1.PersistentVolume
		fails            bool
	}{
		"ours":                {seen: volume("a", "1", Finalizer), live: volume("a", "1", Finalizer)},
		"without finalizers":  {seen: volume("a", "1"), live: volume("a", "1")},
		"others' finalizers":  {seen: volume("a", "1", "x", Finalizer, "y"), live: volume("a", "1", "x", Finalizer, "y"), left: deleted(volume("a", "", "x", "y"))},
		"only others'":        {seen: volume("a", "1", "x"), live: volume("a", "1", "x"), left: deleted(volume("a", "", "x"))},
		"deleted before":      {seen: deleted(volume("a", "1", Finalizer)), live: deleted(volume("a", "1", Finalizer))},
		"gone":                {seen: volume("a", "1", Finalizer)},
		"gone after a mark":   {seen: deleted(volume("a", "1", Finalizer))},
		"changed since":       {seen: volume("a", "1", Finalizer), live: volume("a", "2", Finalizer)},
		"marked since":        {seen: volume("a", "1", Finalizer), live: deleted(volume("a", "2", Finalizer))},
		"to be kept by now":   {seen: volume("a", "1", Finalizer), live: kept, left: kept, fails: true},
		"replaced":            {seen: volume("a", "1", Finalizer), live: volume("b", "1", Finalizer), left: volume("b", "1", Finalizer), fails: true},
		"replaced after that": {seen: deleted(volume("a", "1", Finalizer)), live: volume("b", "1", Finalizer), left: volume("b", "1", Finalizer), fails: true},
	} {
		client := careful(t, test.live)
		p := &Provisioner{options: Options{Client: client}}
		if err := p.deletePV(ctx, volume("a", "0", Finalizer), test.seen); (err != nil) != test.fails {
			t.Errorf("%s: %v", name, err)
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

// What answers "conflict" for ever, as a webhook can, is no success.
func TestDeletionThatConflictsForEver(t *testing.T) {
	pv := &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pvc-1", UID: "a", ResourceVersion: "1", Finalizers: []string{Finalizer}},
		Spec:       v1.PersistentVolumeSpec{PersistentVolumeReclaimPolicy: v1.PersistentVolumeReclaimDelete},
		Status:     v1.PersistentVolumeStatus{Phase: v1.VolumeReleased},
	}
	client := fake.NewClientset(pv)
	tries := 0
	client.PrependReactor("delete", "persistentvolumes", func(clienttesting.Action) (bool, runtime.Object, error) {
		tries++
		return true, nil, apierrors.NewConflict(schema.GroupResource{Resource: "persistentvolumes"}, "pvc-1", errors.New("a webhook says no"))
	})
	p := &Provisioner{options: Options{Client: client}}
	if err := p.deletePV(ctx, pv, pv); !apierrors.IsConflict(err) || tries != deleteAttempts {
		t.Errorf("%d tries: %v", tries, err)
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
	// stored is what there is now, an error if there is nothing.
	stored := func() (*v1.PersistentVolume, error) {
		object, err := client.Tracker().Get(volumes, "", "pvc-1")
		if err != nil {
			return nil, err
		}
		return object.(*v1.PersistentVolume).DeepCopy(), nil
	}
	store := func(pv *v1.PersistentVolume) error {
		if pv.DeletionTimestamp != nil && len(pv.Finalizers) == 0 {
			return client.Tracker().Delete(volumes, "", "pvc-1")
		}
		return client.Tracker().Update(volumes, pv, "")
	}
	conflict := apierrors.NewConflict(volumes.GroupResource(), "pvc-1", errors.New("has changed"))
	client.PrependReactor("patch", "persistentvolumes", func(action clienttesting.Action) (bool, runtime.Object, error) {
		now, err := stored()
		if err != nil {
			return true, nil, err
		}
		var patch struct{ Metadata struct{ UID types.UID } }
		check(t, json.Unmarshal(action.(clienttesting.PatchAction).GetPatch(), &patch))
		if patch.Metadata.UID != now.UID {
			return true, nil, conflict
		}
		now.Finalizers = slices.DeleteFunc(now.Finalizers, func(f string) bool { return f == Finalizer })
		return true, now, store(now)
	})
	client.PrependReactor("delete", "persistentvolumes", func(action clienttesting.Action) (bool, runtime.Object, error) {
		now, err := stored()
		if err != nil {
			return true, nil, err
		}
		only := action.(clienttesting.DeleteActionImpl).DeleteOptions.Preconditions
		switch {
		case only == nil || *only.UID != now.UID || *only.ResourceVersion != now.ResourceVersion:
			return true, nil, conflict
		case now.DeletionTimestamp != nil:
			return true, nil, errors.New("deleted a second time")
		}
		at := metav1.Now()
		now.DeletionTimestamp = &at
		return true, nil, store(now)
	})
	return client
}

// keepDeleted has PersistentVolumes that are deleted wait for another's finalizer.
func keepDeleted(client kubernetes.Interface) {
	client.(*fake.Clientset).PrependReactor("delete", "persistentvolumes", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, nil
	})
}
