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
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

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
	caches, err := NewCaches(informers.NewSharedInformerFactory(client, 0))
	check(t, err)
	caches.Start(t.Context())
	shares := &fakeshare.Shares{}
	c, _ := NewController(client, Options{DriverName: driver, DefaultOnDelete: volume.Delete, Cluster: cluster, Shares: shares, Client: client, Caches: caches}, 2)
	go c.Run(t.Context())
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

// A volume that is deleted is gone in one turn, unless somebody else has a finalizer on it. What
// has come by its name since has lost nothing.
func TestDeletedVolumeLosesOurFinalizer(t *testing.T) {
	volumes := schema.GroupVersionResource{Version: "v1", Resource: "persistentvolumes"}
	for name, test := range map[string]struct {
		finalizers, left []string
		replaced         bool
	}{
		"ours":      {finalizers: []string{finalizer}},
		"none":      {},
		"theirs":    {finalizers: []string{"a", finalizer, "b"}, left: []string{"a", "b"}},
		"only them": {finalizers: []string{"a"}, left: []string{"a"}},
		"replaced":  {finalizers: []string{finalizer}, left: []string{finalizer}, replaced: true},
	} {
		pv := &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pvc-1", Finalizers: test.finalizers}}
		client := fake.NewClientset(pv)
		// As the API server does it: what has finalizers waits for them.
		client.PrependReactor("delete", "persistentvolumes", func(clienttesting.Action) (bool, runtime.Object, error) {
			if len(test.finalizers) == 0 || test.replaced {
				return test.replaced, nil, nil
			}
			now := metav1.Now()
			leaving := pv.DeepCopy()
			leaving.DeletionTimestamp = &now
			return true, nil, client.Tracker().Update(volumes, leaving, "")
		})
		client.PrependReactor("update", "persistentvolumes", func(action clienttesting.Action) (bool, runtime.Object, error) {
			object := action.(clienttesting.UpdateAction).GetObject().(*v1.PersistentVolume)
			if len(object.Finalizers) > 0 {
				return false, nil, nil
			}
			return true, object, client.Tracker().Delete(volumes, "", object.Name)
		})
		saver := saving{Interface: client, unsaved: &unsaved{}}
		check(t, saver.CoreV1().PersistentVolumes().Delete(ctx, "pvc-1", metav1.DeleteOptions{}))
		live, err := client.CoreV1().PersistentVolumes().Get(ctx, "pvc-1", metav1.GetOptions{})
		if len(test.left) == 0 {
			if !apierrors.IsNotFound(err) {
				t.Errorf("%s: is there still: %v", name, err)
			}
			continue
		}
		if err != nil || !slices.Equal(live.Finalizers, test.left) {
			t.Errorf("%s: %v, %v", name, live, err)
		}
	}
}
