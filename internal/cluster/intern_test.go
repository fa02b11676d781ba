package cluster

import (
	"bytes"
	"fmt"
	"maps"
	"runtime"
	"strings"
	"sync"
	"testing"
	"unsafe"

	v1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func fullClaim() *v1.PersistentVolumeClaim {
	mode, class := v1.PersistentVolumeFilesystem, "class"
	size := v1.ResourceList{v1.ResourceStorage: resource.MustParse("1Gi"), "example.com/other": resource.MustParse("3")}
	return &v1.PersistentVolumeClaim{
		ObjectMeta: fullMeta("claim"),
		Spec: v1.PersistentVolumeClaimSpec{
			AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteMany}, VolumeMode: &mode, StorageClassName: &class, VolumeName: "volume",
			Resources: v1.VolumeResourceRequirements{Requests: size, Limits: size},
		},
		Status: v1.PersistentVolumeClaimStatus{Phase: v1.ClaimBound, AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteMany}, Capacity: size},
	}
}

// Nothing becomes another value, whatever was seen before: not what is empty, either.
func TestSharingChangesNothing(t *testing.T) {
	empty := &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{}, Finalizers: []string{}}}
	other := fullVolume()
	other.Spec.Capacity[v1.ResourceStorage] = resource.MustParse("1024Mi") // as much, in other words
	other.Annotations["note"] = "c"
	other.Spec.AccessModes = []v1.PersistentVolumeAccessMode{v1.ReadWriteMany, v1.ReadOnlyMany}
	other.Finalizers = []string{"example.com/first", ""}
	split := fullVolume()
	split.Finalizers = []string{"example.com", "first"}
	s := newInterner()
	for range 2 {
		for _, pv := range []*v1.PersistentVolume{{}, fullVolume(), other, split} {
			got := pv.DeepCopy()
			s.share(got)
			as, err := got.Marshal()
			check(t, err)
			was, err := pv.Marshal()
			check(t, err)
			if !apiequality.Semantic.DeepEqual(got, pv) || !bytes.Equal(as, was) {
				t.Errorf("got %v\nwant %v", got, pv)
			}
		}
		for _, claim := range []*v1.PersistentVolumeClaim{{}, empty, fullClaim()} {
			got := claim.DeepCopy()
			s.share(got)
			if !apiequality.Semantic.DeepEqual(got, claim) || (got.Annotations == nil) != (claim.Annotations == nil) || (got.Finalizers == nil) != (claim.Finalizers == nil) {
				t.Errorf("got %v\nwant %v", got, claim)
			}
		}
	}
}

func TestEqualPartsAreSharedAndOthersAreNot(t *testing.T) {
	s := newInterner()
	shared := func(change func(pv *v1.PersistentVolume)) *v1.PersistentVolume {
		pv := fullVolume()
		pv.Spec.StorageClassName = fmt.Sprint("cl", "ass") // as it comes: not a constant
		change(pv)
		s.share(pv)
		return pv
	}
	a := shared(func(*v1.PersistentVolume) {})
	runtime.GC() // what comes by and by shares with what is there
	runtime.GC()
	b := shared(func(*v1.PersistentVolume) {})
	changed := shared(func(pv *v1.PersistentVolume) { pv.Annotations["note"] = "c" })
	long := func(pv *v1.PersistentVolume) { pv.Annotations["note"] = strings.Repeat("c", maxShared) }
	long1, long2 := shared(long), shared(long)
	same := func(a, b map[string]string) bool {
		return *(*unsafe.Pointer)(unsafe.Pointer(&a)) == *(*unsafe.Pointer)(unsafe.Pointer(&b))
	}
	if !same(a.Annotations, b.Annotations) || unsafe.StringData(a.Spec.StorageClassName) != unsafe.StringData(b.Spec.StorageClassName) ||
		&a.Finalizers[0] != &b.Finalizers[0] || a.Spec.VolumeMode != b.Spec.VolumeMode {
		t.Error("equal parts are not shared")
	}
	if same(a.Annotations, changed.Annotations) || same(long1.Annotations, long2.Annotations) || same(a.Spec.CSI.VolumeAttributes, b.Spec.CSI.VolumeAttributes) {
		t.Error("shared is what differs, or nobody else has")
	}
	if changed.Annotations["note"] != "c" || a.Annotations["note"] != "b" {
		t.Errorf("%v, %v", changed.Annotations, a.Annotations)
	}
}

// Claims that have annotations of their own each don't fill the memory.
func TestWhatIsSharedIsBounded(t *testing.T) {
	s := newInterner()
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			for i := range maxCommon {
				pv := fullVolume()
				pv.Annotations = map[string]string{"mine": fmt.Sprint(worker, i)}
				s.share(pv)
				if !maps.Equal(pv.Annotations, map[string]string{"mine": fmt.Sprint(worker, i)}) {
					t.Errorf("got another's %v", pv.Annotations)
				}
			}
		})
	}
	all.Wait()
	if len(s.common) == 0 || len(s.common) > maxCommon {
		t.Errorf("%d are kept", len(s.common))
	}
}
