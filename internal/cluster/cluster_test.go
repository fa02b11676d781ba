package cluster

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
)

// fullMeta has something in each field that is stored.
func fullMeta(name string) metav1.ObjectMeta {
	begun, yes := metav1.Unix(1e9, 0), true
	return metav1.ObjectMeta{
		Name: name, GenerateName: "g", UID: "uid", ResourceVersion: "7", Generation: 3, CreationTimestamp: begun,
		Labels: map[string]string{"label": "a"}, Annotations: map[string]string{"note": "b", AnnProvisionedBy: driver},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Owner", Name: "o", UID: "o", Controller: &yes}},
		Finalizers:      []string{"example.com/first"},
		ManagedFields: []metav1.ManagedFieldsEntry{{
			Manager: "somebody", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1", Time: &begun,
			FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{}}`),
		}},
	}
}

func fullVolume() *v1.PersistentVolume {
	mode := v1.PersistentVolumeFilesystem
	return &v1.PersistentVolume{
		ObjectMeta: fullMeta("volume"),
		Spec: v1.PersistentVolumeSpec{
			Capacity: v1.ResourceList{v1.ResourceStorage: resource.MustParse("1Gi")},
			PersistentVolumeSource: v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{
				Driver: driver, VolumeHandle: "h", ReadOnly: true, VolumeAttributes: map[string]string{"server": "nfs", "share": "/srv"},
				NodePublishSecretRef: &v1.SecretReference{Name: "s", Namespace: "n"},
			}},
			AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteMany}, ClaimRef: &v1.ObjectReference{Name: "claim", UID: "c"},
			PersistentVolumeReclaimPolicy: v1.PersistentVolumeReclaimDelete, StorageClassName: "class", MountOptions: []string{"nolock"},
			VolumeMode: &mode, NodeAffinity: &v1.VolumeNodeAffinity{Required: &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{{}}}},
		},
		Status: v1.PersistentVolumeStatus{Phase: v1.VolumeBound, Message: "m", Reason: "r"},
	}
}

// The caches have all of an object but its managedFields, of which they have nothing.
func TestCachesDropManagedFieldsAndNothingElse(t *testing.T) {
	pv, class := fullVolume(), &storagev1.StorageClass{ObjectMeta: fullMeta("class"), Provisioner: driver, Parameters: map[string]string{"server": "a"}}
	claim := &v1.PersistentVolumeClaim{ObjectMeta: fullMeta("claim"), Spec: v1.PersistentVolumeClaimSpec{VolumeName: "volume"}}
	claim.Namespace = "default"
	client := fake.NewClientset(pv, claim, class)
	caches, err := New(client, Names{Driver: driver})
	check(t, err)
	caches.Start(t.Context())
	if !cache.WaitForCacheSync(t.Context().Done(), caches.Volumes.HasSynced, caches.Claims.HasSynced, caches.Classes.HasSynced) {
		t.Fatal("the caches are not filled")
	}
	changed := pv.DeepCopy() // comes by the watch
	changed.Labels["label"] = "other"
	_, err = client.CoreV1().PersistentVolumes().Update(t.Context(), changed, metav1.UpdateOptions{})
	check(t, err)
	waitUntil(t, "the change is seen", func() bool {
		object, _, _ := caches.Volumes.GetStore().GetByKey("volume")
		return object.(*v1.PersistentVolume).Labels["label"] == "other"
	})
	changed.ManagedFields, claim.ManagedFields, class.ManagedFields = nil, nil, nil
	for informer, want := range map[cache.SharedIndexInformer]any{caches.Volumes: changed, caches.Claims: claim, caches.Classes: class} {
		if got := informer.GetStore().List(); len(got) != 1 || !apiequality.Semantic.DeepEqual(got[0], want) {
			t.Errorf("cached\n%+v, want\n%+v", got, want)
		}
	}
}
