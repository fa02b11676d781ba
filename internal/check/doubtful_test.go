package check

import (
	"context"
	"errors"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sharevol.dev/sharevol/internal/fs"
	"sharevol.dev/sharevol/internal/volume"
)

// A directory that an in-tree volume uses by another name of the same server (its
// address here, as in-tree nfs often has) is no orphan.
func TestNoOrphanInUseUnderAnotherNameOfTheServer(t *testing.T) {
	f := newFixture(t)
	srv := f.export("localhost:/srv")
	write(t, "precious", srv, "team-data-pvc-old", "file")
	f.add(class("gold", "localhost", "/srv", nil), &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pvc-old"},
		Spec: v1.PersistentVolumeSpec{
			ClaimRef:               &v1.ObjectReference{Namespace: "team", Name: "data"},
			PersistentVolumeSource: v1.PersistentVolumeSource{NFS: &v1.NFSVolumeSource{Server: "127.0.0.1", Path: "/srv/team-data-pvc-old"}},
		},
		Status: v1.PersistentVolumeStatus{Phase: v1.VolumeBound},
	})
	s := f.run().Shares[0]
	if len(s.Orphans) > 0 {
		t.Errorf("a bound volume's directory is an orphan: %+v, %q", s.Orphans, s.Faults)
	}
}

// Options that the provisioner refuses, as they redirect or widen a mount, are nothing
// that a check may mount with.
func TestRefusedMountOptionsMountNothing(t *testing.T) {
	f := newFixture(t)
	f.export("nfs:/srv")
	f.export("nfs:/vol")
	f.add(class("bad", "nfs", "/srv", func(c *storagev1.StorageClass) { c.MountOptions = []string{"addr=203.0.113.66", "remount"} }))
	f.add(pv("pvc-1", "nfs", "/vol", "a", shareID, func(pv *v1.PersistentVolume) {
		pv.Spec.MountOptions = []string{"rbind"}
	}))
	f.run()
	for _, call := range f.mounter.Calls() {
		for _, o := range call.Options {
			if err := fs.Types.Options(volume.Share{}).Check(o); err != nil {
				t.Errorf("mounted %s with %q: %v", call.Source, strings.Join(call.Options, ","), err)
			}
		}
	}
}

// A class whose mount options come from a secret, with no volume yet: nothing was
// looked at, so the status is 2 and not 1, by the README.
func TestClassWithASecretAlone(t *testing.T) {
	f := newFixture(t)
	f.export("nfs:/srv")
	f.add(class("gold", "nfs", "/srv", func(c *storagev1.StorageClass) {
		c.Parameters["csi.storage.k8s.io/provisioner-secret-name"], c.Parameters["csi.storage.k8s.io/provisioner-secret-namespace"] = "s", "ns"
	}))
	report := f.run()
	if report.ExitStatus() != 2 {
		t.Errorf("status %s: %+v", report.Status, report.Shares[0])
	}
}

// A server that can't be looked up may be any other: that is told, as it hides orphans.
func TestServerThatCantBeLookedUp(t *testing.T) {
	f := newFixture(t)
	srv := f.export("nfs:/srv")
	write(t, "x", srv, "by-hand", "file")
	lookup := f.options.LookupHost
	f.options.LookupHost = func(ctx context.Context, host string) ([]string, error) {
		if host == "gone" {
			return nil, errors.New("no such host")
		}
		return lookup(ctx, host)
	}
	f.add(class("gold", "nfs", "/srv", nil), &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "old"},
		Spec:       v1.PersistentVolumeSpec{PersistentVolumeSource: v1.PersistentVolumeSource{NFS: &v1.NFSVolumeSource{Server: "gone", Path: "/srv"}}},
	})
	if report := f.run(); report.ExitStatus() != 2 || !strings.Contains(strings.Join(report.Problems, " "), "can't be looked up, and may be any other: gone") {
		t.Errorf("status %s: %q", report.Status, report.Problems)
	}
}
