package provision

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sharevol.dev/sharevol/internal/cluster"
	"sharevol.dev/sharevol/internal/volume"
)

// A cache that lags behind is no reason to remove what another provisioner made, either:
// the volume is gone, or is to be kept by now.
func TestForeignVolumeIsConfirmed(t *testing.T) {
	for _, what := range []string{"gone", "retain"} {
		s := newSoil(t)
		pv, file := s.old("/team/ns/notes")
		_, theirs := s.adopting(pv)
		client := theirs.options.Client.CoreV1().PersistentVolumes()
		if what == "gone" {
			check(t, client.Delete(ctx, pv.Name, metav1.DeleteOptions{}))
		} else {
			kept := pv.DeepCopy()
			kept.Spec.PersistentVolumeReclaimPolicy = v1.PersistentVolumeReclaimRetain
			_, err := client.Update(ctx, kept, metav1.UpdateOptions{})
			check(t, err)
		}
		err := theirs.Delete(ctx, pv)
		if err == nil || errors.Is(err, ErrGone) != (what == "gone") {
			t.Errorf("%s: %v", what, err)
		}
		exists(t, file, what)
	}
}

// Another's Finalizer, or a crash, keeps a volume there when its directory is gone. What
// comes to the place then is not its, also for the next leader.
func TestForeignVolumeIsDeletedOnceByWhomever(t *testing.T) {
	s := newSoil(t)
	pv, file := s.old("/team/ns/notes")
	_, theirs := s.adopting(pv)
	keepDeleted(theirs.options.Client)
	check(t, done(theirs.Delete(ctx, pv)))
	live, err := theirs.options.Client.CoreV1().PersistentVolumes().Get(ctx, pv.Name, metav1.GetOptions{})
	check(t, err)
	check(t, os.MkdirAll(filepath.Dir(file), 0o755))
	check(t, os.WriteFile(file, nil, 0o600))
	_, again := s.adopting(live)
	for range 2 {
		check(t, done(again.Delete(ctx, pv))) // as the cache has it
	}
	exists(t, file, "what came later")
}

// The directory of a volume is the root of a share that is served, or holds it: what is
// there may be named by no volume (archives, what was retained).
func TestVolumeThatHoldsAShareStays(t *testing.T) {
	classOf := func(server, share string) *storagev1.StorageClass {
		return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: server + strings.ReplaceAll(share, "/", "-")}, Provisioner: driver, Parameters: map[string]string{"server": server, "share": share}}
	}
	for _, class := range []*storagev1.StorageClass{
		classOf("nfs", "/team/ns"), classOf("nfs", "/team/ns/notes/deep"), classOf("192.0.2.1", "/team/ns/notes"), classOf("unknown", "/team/ns"),
	} {
		s := newSoil(t)
		pv, file := s.old("/team/ns")
		_, theirs := s.adopting(pv, class)
		if err := done(theirs.Delete(ctx, pv)); err == nil || !strings.Contains(err.Error(), "is or holds the share "+class.Parameters["server"]+":") {
			t.Errorf("got %v", err)
		}
		exists(t, file, class.Parameters["share"])
		mine, precious := s.mustProvision(s.in(clusterID), asking("mine", "nfs", "/", "team/ns", "retain"))
		mine.Spec.CSI.VolumeAttributes["onDelete"] = "delete"
		ours := s.in(clusterID, mine, class)
		if err := done(ours.Delete(ctx, mine)); err == nil || !strings.Contains(err.Error(), "is or holds the share") {
			t.Errorf("got %v", err)
		}
		exists(t, precious, class.Parameters["share"])
	}
	s := newSoil(t)
	pv, _ := s.old("/team/ns")
	_, theirs := s.adopting(pv, classOf("other", "/team/ns"), classOf("nfs", "/team/ns2"))
	check(t, done(theirs.Delete(ctx, pv)))
	// The root of what is adopted, as a driver of another name sees it.
	_, theirs = s.adopting()
	if err := theirs.options.Cluster.CheckNoShare(ctx, volume.Directory{Share: volume.Share{Server: "nfs", Path: "/"}, SubDir: "team"}); err == nil {
		t.Error("an adopted share may go")
	}
}

// sharevol made an in-tree volume under an adopted name. Once that is not adopted any
// more, the volume still has its directory, and not all of the share.
func TestInTreeVolumeAfterItsAdoption(t *testing.T) {
	s := newSoil(t)
	_, theirs := s.adopting()
	options := requestFor("intree")
	options.Class.Parameters, options.Class.MountOptions = map[string]string{"pathPattern": "kept", "archiveOnDelete": "false"}, nil
	intree, err := theirs.Provision(ctx, options)
	check(t, err)
	intree.Annotations[cluster.AnnProvisionedBy] = teamProvisioner.Name
	intree.Status.Phase = v1.VolumeBound

	mine, _ := s.mustProvision(s.in(clusterID, intree), asking("mine", "nfs", "/team", "mine", "delete"))
	mine.Annotations[cluster.AnnProvisionedBy] = driver
	p := s.in(clusterID, intree, mine)
	_, err = p.Provision(ctx, asking("new", "nfs", "/team", "another", "delete"))
	check(t, err)
	check(t, done(p.Delete(ctx, mine)))
	s.refused(p, asking("late", "nfs", "/team", "kept", "delete"), "is in use by volume pvc-intree")
	s.refused(p, asking("late", "nfs", "/", "team/kept/below", "delete"), "is in use by volume pvc-intree")
}
