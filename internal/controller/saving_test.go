package controller

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"sharevol.dev/sharevol/internal/cluster"
	"sharevol.dev/sharevol/internal/cluster/clustertest"
	"sharevol.dev/sharevol/internal/provision"
	"sharevol.dev/sharevol/internal/share/sharetest"
)

// The same as TestVolumeThatCanNotBeSaved for a claim of an adopted name.
func TestAdoptedVolumeThatCanNotBeSaved(t *testing.T) {
	class := clustertest.AdoptedClasses()[0].(*storagev1.StorageClass)
	claim := clustertest.Claim()
	claim.Spec.StorageClassName = &class.Name
	claim.Annotations = map[string]string{annStorageProvisioner: clustertest.Adopted.Name}
	client := fake.NewClientset(class, claim)
	var taken atomic.Bool
	client.PrependReactor("create", "persistentvolumes", func(clienttesting.Action) (bool, runtime.Object, error) {
		return !taken.Load(), nil, errors.New("admission webhook denied the request: volumes need a label")
	})
	fixtureOf(t, client, sharetest.New(t), adoptedNames, 2).run(t)
	waitUntil(t, "warning on the claim", func() bool {
		events, err := client.CoreV1().Events(v1.NamespaceAll).List(ctx, metav1.ListOptions{})
		check(t, err)
		return slices.ContainsFunc(events.Items, func(e v1.Event) bool {
			return e.Type == v1.EventTypeWarning && e.InvolvedObject.Name == claim.Name && strings.Contains(e.Message, "volumes need a label") && e.Source.Component == clustertest.Adopted.Name
		})
	})
	taken.Store(true)
	waitUntil(t, "volume", func() bool {
		pv, err := client.CoreV1().PersistentVolumes().Get(ctx, "pvc-1", metav1.GetOptions{})
		return err == nil && pv.Annotations[cluster.AnnProvisionedBy] == clustertest.Adopted.Name
	})
}

// The API server does not take the volume, because of a webhook or a policy: the claim's
// user is told, and the claim is looked at again when it changes.
func TestVolumeThatCanNotBeSaved(t *testing.T) {
	claim, class := clustertest.Claim(), clustertest.Class()
	class.Parameters["subDir"] = "${pvc.metadata.labels['what']}-${pv.metadata.name}"
	claim.Labels = map[string]string{"what": "plain"}
	client := fake.NewClientset(class, claim)
	var refused atomic.Int32
	client.PrependReactor("create", "persistentvolumes", func(action clienttesting.Action) (bool, runtime.Object, error) {
		pv := action.(clienttesting.CreateAction).GetObject().(*v1.PersistentVolume)
		if strings.HasPrefix(pv.Spec.CSI.VolumeAttributes["subDir"], "labelled-") {
			return false, nil, nil
		}
		refused.Add(1)
		return true, nil, errors.New("admission webhook denied the request: volumes need a label")
	})
	f := fixtureOf(t, client, sharetest.New(t), driverNames, 2)
	f.run(t)
	waitUntil(t, "a warning on the claim", func() bool {
		events, err := client.CoreV1().Events(v1.NamespaceAll).List(ctx, metav1.ListOptions{})
		check(t, err)
		return slices.ContainsFunc(events.Items, func(e v1.Event) bool {
			return e.Type == v1.EventTypeWarning && e.InvolvedObject.Name == claim.Name && strings.Contains(e.Message, "volumes need a label")
		})
	})
	if f.cluster.HasVolume("pvc-1") {
		t.Error("a volume that was never saved is in the cache")
	}
	// A change of the claim is acted on at once.
	claim = claim.DeepCopy()
	claim.Labels = map[string]string{"what": "labelled"}
	_, err := client.CoreV1().PersistentVolumeClaims(claim.Namespace).Update(ctx, claim, metav1.UpdateOptions{})
	check(t, err)
	waitUntil(t, "the volume", func() bool {
		_, err := client.CoreV1().PersistentVolumes().Get(ctx, "pvc-1", metav1.GetOptions{})
		return err == nil
	})
}

// What the library writes back of the caches has all that the API server had, but its
// managedFields, which an update without them leaves as they are.
func TestUpdatesLoseNothing(t *testing.T) {
	pv := clustertest.AdoptedVolume("pvc-1", "/srv/k8s/x", "nfs-delete")
	pv.Status.Phase, pv.Labels, pv.Finalizers = v1.VolumeBound, map[string]string{"label": "a"}, []string{"example.com/first"}
	pv.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "somebody", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1"}}
	f := newFixture(t, sharetest.New(t), adoptedNames, 2, pv)
	f.run(t)
	client := f.client
	var sent *v1.PersistentVolume
	waitUntil(t, "the finalizer is added", func() bool {
		for _, action := range client.Actions() {
			if update, ok := action.(clienttesting.UpdateAction); ok && update.Matches("update", "persistentvolumes") {
				sent = update.GetObject().(*v1.PersistentVolume)
			}
		}
		return sent != nil
	})
	want := pv.DeepCopy()
	want.Finalizers, want.ManagedFields = slices.Concat(pv.Finalizers, []string{provision.Finalizer}), nil
	if !apiequality.Semantic.DeepEqual(sent, want) {
		t.Errorf("sent\n%+v, want\n%+v", sent, want)
	}
}
