package provision

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"sharevol.dev/sharevol/internal/share"
	"sharevol.dev/sharevol/internal/share/operation"
	"sharevol.dev/sharevol/internal/volume"
)

// Released by hand and bound to another claim since the cache saw it Released.
func TestVolumeThatIsInUseAgainStays(t *testing.T) {
	s := newSoil(t)
	pv, file := s.old("/team/ns/notes")
	pv.Spec.ClaimRef = &v1.ObjectReference{Namespace: "ns", Name: "notes", UID: "old"}
	_, theirs := s.adopting(pv)
	live := pv.DeepCopy()
	live.Spec.ClaimRef = &v1.ObjectReference{Namespace: "ns", Name: "notes", UID: "new"}
	live.Status.Phase = v1.VolumeBound
	_, err := theirs.options.Client.CoreV1().PersistentVolumes().Update(ctx, live, metav1.UpdateOptions{})
	check(t, err)
	if err := done(theirs.Delete(ctx, pv)); err == nil || !strings.Contains(err.Error(), `Bound by now, for the claim "new"`) {
		t.Errorf("foreign: %v", err)
	}
	exists(t, file, "foreign, rebound")

	mine, precious := s.mustProvision(s.in(clusterID), asking("mine", "nfs", "/", "mine", "delete"))
	mine.Status.Phase = v1.VolumeReleased
	mine.Spec.ClaimRef = &v1.ObjectReference{Namespace: "ns", Name: "notes", UID: "old"}
	p := s.in(clusterID, mine)
	live = mine.DeepCopy()
	live.Spec.ClaimRef = &v1.ObjectReference{Namespace: "ns", Name: "notes", UID: "new"}
	live.Status.Phase = v1.VolumeBound
	_, err = p.options.Client.CoreV1().PersistentVolumes().Update(ctx, live, metav1.UpdateOptions{})
	check(t, err)
	if err := done(p.Delete(ctx, mine)); err == nil || !strings.Contains(err.Error(), "by now") {
		t.Errorf("own: %v", err)
	}
	exists(t, precious, "own, rebound")
}

// The name service does not tell for a while: the sweep waits, and does not drop the record.
func TestSweepWaitsForTheNameService(t *testing.T) {
	s := newSoil(t)
	options := asking("1", "nfs", "/", "notes", "delete")
	_, err := s.in(clusterID).Provision(ctx, options)
	check(t, err)
	static := &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "static"}, Spec: v1.PersistentVolumeSpec{PersistentVolumeSource: v1.PersistentVolumeSource{
		NFS: &v1.NFSVolumeSource{Server: "gone", Path: "/"}}}}
	p := s.in(clusterID, static, options.Class)
	left := p.sweep(ctx, p.refs(ctx))
	records, err := share.Do(ctx, p.options.Shares, share.Ref{Share: volume.Share{Server: "nfs", Path: "/"}}, operation.Records, clusterID)
	if len(left) != 1 || err != nil || len(records) != 1 {
		t.Errorf("to be tried again %v; records %v, %v", left, records, err)
	}
	p.options.Cluster.LookupHost = lookupIn(map[string]string{"nfs": "192.0.2.1", "gone": "192.0.2.9"})
	p.sweep(ctx, p.refs(ctx))
	_, err = p.Provision(ctx, asking("2", "nfs", "/", "notes", "delete"))
	check(t, err)
}

// The directory is noted gone, and a hand-made volume has the place now: that is not in the way.
func TestForeignVolumeWhosePlaceIsAnothers(t *testing.T) {
	s := newSoil(t)
	pv, _ := s.old("/team/ns/notes")
	_, theirs := s.adopting(pv)
	keepDeleted(theirs.options.Client)
	check(t, done(theirs.Delete(ctx, pv)))
	live, err := theirs.options.Client.CoreV1().PersistentVolumes().Get(ctx, pv.Name, metav1.GetOptions{})
	check(t, err)
	static := &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "static"}, Spec: v1.PersistentVolumeSpec{PersistentVolumeSource: v1.PersistentVolumeSource{
		NFS: &v1.NFSVolumeSource{Server: "nfs", Path: "/team/ns/notes"}}}}
	_, again := s.adopting(live, static)
	if err := done(again.Delete(ctx, live)); err != nil {
		t.Errorf("got %v", err)
	}
}

// The note can't be saved: what comes to the place meanwhile stays all the same.
func TestForeignVolumeThatCantBeToldIsDeletedOnce(t *testing.T) {
	s := newSoil(t)
	pv, file := s.old("/team/ns/notes")
	_, theirs := s.adopting(pv)
	theirs.options.Client.(*fake.Clientset).PrependReactor("update", "persistentvolumes", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("a webhook says no")
	})
	refused := func() {
		if err := done(theirs.Delete(ctx, pv)); err == nil || !strings.Contains(err.Error(), "updating the PersistentVolume failed") {
			t.Errorf("got %v", err)
		}
	}
	refused()
	check(t, os.MkdirAll(filepath.Dir(file), 0o755))
	check(t, os.WriteFile(file, nil, 0o600))
	refused()
	exists(t, file, "what came later")
}
