package provision

import (
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"sharevol.dev/sharevol/internal/share/fakeshare"
	"sharevol.dev/sharevol/internal/volume"
)

// A volume that nobody knows of any more, or another one of its name, is not remembered for ever.
func TestHiddenVolumesAreForgotten(t *testing.T) {
	client, all := fake.NewClientset(), newOutgoing()
	gone := &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pvc-1", UID: "a", Finalizers: []string{finalizer}}}
	all.put(gone)
	saver := saving{Interface: client, unsaved: &unsaved{}, outgoing: all}
	check(t, saver.CoreV1().PersistentVolumes().Delete(ctx, "pvc-1", metav1.DeleteOptions{}))
	if len(all.hidden) != 0 {
		t.Errorf("hidden still, though it was gone before: %v", all.hidden)
	}
	all.hide("pvc-1", "a")
	another := gone.DeepCopy()
	another.UID = "b"
	if all.isHidden(another) || len(all.hidden) != 0 {
		t.Errorf("hidden still, though there is another one: %v", all.hidden)
	}
}

// Of several provisioners of one driver, each with its own premounted shares, one leaves
// alone what another is deleting: it does not put the finalizer back.
func TestVolumesOfOtherSharesAreLeftAlone(t *testing.T) {
	pv := &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pvc-1", UID: "a", ResourceVersion: "1", Annotations: map[string]string{annProvisionedBy: driver, annShareID: "x"}},
		Spec: v1.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: v1.PersistentVolumeReclaimDelete,
			PersistentVolumeSource: v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{
				Driver: driver, VolumeHandle: "nfs#srv#pvc-1#pvc-1#",
				VolumeAttributes: map[string]string{"server": "nfs", "share": "/srv", "subDir": "pvc-1", "onDelete": "delete"},
			}},
		},
		Status: v1.PersistentVolumeStatus{Phase: v1.VolumeReleased},
	}
	mine := pv.DeepCopy()
	mine.Name, mine.Spec.CSI.VolumeHandle = "pvc-2", "elsewhere#srv#pvc-2#pvc-2#"
	mine.Spec.CSI.VolumeAttributes = map[string]string{"server": "elsewhere", "share": "/srv", "subDir": "pvc-2", "onDelete": "delete"}
	mine.Status.Phase = v1.VolumeBound
	client := fake.NewClientset(pv, mine)
	caches, err := NewCaches(client)
	check(t, err)
	shares := &fakeshare.Shares{Only: &volume.Share{Server: "elsewhere", Path: "/srv"}}
	runController(t, client, Options{DriverName: driver, DefaultOnDelete: volume.Delete, Cluster: cluster, Shares: shares, Caches: caches}, 2)
	finalizers := func(name string) int {
		live, err := client.CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
		check(t, err)
		return len(live.Finalizers)
	}
	eventually(t, "finalizer on its own volume", func() bool { return finalizers("pvc-2") == 1 })
	time.Sleep(50 * time.Millisecond) // for what should not come
	if finalizers("pvc-1") != 0 {
		t.Error("it put its finalizer on a volume that it does not serve")
	}
}
