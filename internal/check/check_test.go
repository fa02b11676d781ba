package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"sharevol.dev/sharevol/internal/share/dirs"
	"sharevol.dev/sharevol/internal/volume"
)

// UPDATE_GOLDEN=1 rewrites the files of testdata.
func TestGolden(t *testing.T) {
	f := newFixture(t)
	f.everything()
	report := f.run()
	if report.ExitStatus() != 1 {
		t.Errorf("status %s", report.Status)
	}
	golden(t, "attention", report)
}

// everything is a cluster with all that needs attention, and some that does not.
func (f *fixture) everything() {
	srv, dead := f.export("nfs:/srv"), f.export("dead:/srv")
	create(f.t, srv, clusterID, map[string]string{"pvc-1": "default/a", "pvc-2": "default/b", "pvc-crashed": "team/gone", "pvc-making": "making", "pvc-trashed": "trashed", "pvc-left": "left"})
	create(f.t, srv, "another", map[string]string{"pvc-9": "theirs/x", "pvc-8": "theirs-y", "pvc-being-removed": "being-removed"})
	must(f.t, os.RemoveAll(filepath.Join(srv, "default", "b")))
	write(f.t, "secret", srv, "by-hand\nwith a line", "file")
	write(f.t, "1234", srv, "archived-pvc-old", "ns", "claim", "file")
	write(f.t, "static", srv, "static", "file")
	for _, name := range []string{"trashed", "left", "being-removed"} {
		must(f.t, os.MkdirAll(filepath.Join(srv, ".sharevol", "trash"), 0o700))
		must(f.t, os.Rename(filepath.Join(srv, name), filepath.Join(srv, ".sharevol", "trash", "pvc-"+name)))
		write(f.t, strings.Repeat("x", 3000), srv, ".sharevol", "trash", "pvc-"+name, "file")
	}
	hang(f.t, dead)
	f.space["nfs:/srv"] = dirs.Space{Bytes: 100 << 30, FreeBytes: 4 << 30, Inodes: 1000, FreeInodes: 900}

	released := func(pv *v1.PersistentVolume) { pv.Status.Phase = v1.VolumeReleased }
	f.add(
		class("gold", "nfs", "/srv", nil),
		class("bad", "nfs", "/srv", func(c *storagev1.StorageClass) {
			c.Parameters["onDelete"], c.Parameters["colour"], c.MountOptions = "shred", "red", []string{"suid"}
		}),
		class("dead", "dead", "/srv", nil),
		class("other", "elsewhere", "/srv", func(c *storagev1.StorageClass) { c.Provisioner = "nfs.csi.k8s.io" }),
		pv("pvc-1", "nfs", "/srv", "default/a", shareID, nil),
		pv("pvc-2", "nfs", "/srv", "default/b", shareID, nil),
		pv("pvc-trashed", "nfs", "/srv", "trashed", shareID, released),
		pv("pvc-5", "nfs", "/srv", "../up", "", nil),
		pv("static", "nfs", "/srv", "static", "", func(pv *v1.PersistentVolume) { pv.Annotations = nil }),
		claim("making", "making"),
		class("managed", "", "", func(c *storagev1.StorageClass) {
			c.Provisioner, c.Parameters = "nfs-subdir", map[string]string{"archiveOnDelete": "false"}
		}),
		adoptable("pvc-a1", "/srv/default-one-pvc-a1"), adoptable("pvc-a2", "/elsewhere/x"),
	)
	f.options.Names.Adopted = []volume.Adoption{{Name: "nfs-subdir", Share: volume.Share{Server: "nfs", Path: "/srv"}}}
	write(f.t, "x", srv, "default-one-pvc-a1", "file")
}

// adoptable is a volume of nfs-subdir-external-provisioner.
func adoptable(name, path string) *v1.PersistentVolume {
	return &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{"pv.kubernetes.io/provisioned-by": "nfs-subdir"}},
		Spec: v1.PersistentVolumeSpec{
			StorageClassName: "managed", PersistentVolumeReclaimPolicy: v1.PersistentVolumeReclaimDelete,
			PersistentVolumeSource: v1.PersistentVolumeSource{NFS: &v1.NFSVolumeSource{Server: "nfs", Path: path}},
		},
		Status: v1.PersistentVolumeStatus{Phase: v1.VolumeBound},
	}
}

func golden(t *testing.T, name string, report *Report) {
	t.Helper()
	for suffix, write := range map[string]func(*bytes.Buffer) error{
		".txt":  func(b *bytes.Buffer) error { return report.WriteTable(b) },
		".json": func(b *bytes.Buffer) error { return report.WriteJSON(b) },
	} {
		var got bytes.Buffer
		must(t, write(&got))
		path := filepath.Join("testdata", name+suffix)
		if os.Getenv("UPDATE_GOLDEN") != "" {
			must(t, os.MkdirAll("testdata", 0o755))
			must(t, os.WriteFile(path, got.Bytes(), 0o600))
		}
		want, err := os.ReadFile(path)
		must(t, err)
		if got.String() != string(want) {
			t.Errorf("%s: got:\n%s\nwant:\n%s", path, &got, want)
		}
	}
}

func TestAllIsWell(t *testing.T) {
	f := newFixture(t)
	srv := f.export("nfs:/srv")
	create(t, srv, clusterID, map[string]string{"pvc-1": "default/a"})
	f.add(class("gold", "nfs", "/srv", nil), pv("pvc-1", "nfs", "/srv", "default/a", shareID, nil))
	report := f.run()
	if report.ExitStatus() != 0 {
		t.Errorf("%+v", report.Shares[0])
	}
	golden(t, "well", report)
}

func TestAnEmptyClusterIsWell(t *testing.T) {
	f := newFixture(t)
	report := f.run()
	if report.ExitStatus() != 0 {
		t.Errorf("%+v", report)
	}
	golden(t, "empty", report)
}

// What else the provisioner does meanwhile looks like no fault.
func TestTheProvisionerWorksOnMeanwhile(t *testing.T) {
	f := newFixture(t)
	srv := f.export("nfs:/srv")
	create(t, srv, clusterID, map[string]string{"pvc-1": "being-deleted", "pvc-2": "being-made"})
	write(t, "x", srv, "made-by-another", "file")
	must(t, os.RemoveAll(filepath.Join(srv, "being-deleted")))
	f.add(class("gold", "nfs", "/srv", nil), pv("pvc-1", "nfs", "/srv", "being-deleted", shareID, nil))
	f.client = fake.NewClientset(f.objects...)
	f.surveyed = func(string) {
		tracker := f.client.Tracker()
		must(t, tracker.Delete(v1.SchemeGroupVersion.WithResource("persistentvolumes"), "", "pvc-1"))
		must(t, tracker.Add(pv("pvc-2", "nfs", "/srv", "being-made", shareID, nil)))
		must(t, tracker.Add(&v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "in-tree"}, Spec: v1.PersistentVolumeSpec{
			PersistentVolumeSource: v1.PersistentVolumeSource{NFS: &v1.NFSVolumeSource{Server: "NFS.", Path: "/srv/made-by-another"}},
		}}))
	}
	if report := f.run(); report.ExitStatus() != 0 {
		t.Errorf("%+v", report.Shares[0])
	}
}

func TestADeadServerHoldsUpNobody(t *testing.T) {
	f := newFixture(t)
	dead, live := f.export("dead:/srv"), f.export("live:/srv")
	hang(t, dead)
	write(t, "x", live, "orphan", "file")
	f.add(class("a", "dead", "/srv", nil), class("b", "live", "/srv", nil), class("c", "missing", "/srv", nil))
	report := f.run()
	if report.ExitStatus() != 1 || len(report.Shares) != 3 {
		t.Fatalf("%+v", report)
	}
	for i, want := range []string{"mounted as class a says: dead:/srv: the NFS server does not answer", "", "mounted as class c says: mount missing:/srv: file does not exist"} {
		s := report.Shares[i]
		if s.Reachable != (want == "") || want != "" && !strings.Contains(strings.Join(s.Faults, "\n"), want) {
			t.Errorf("%+v", s)
		}
	}
	if len(report.Shares[1].Orphans) != 1 {
		t.Errorf("%+v", report.Shares[1])
	}
}

func TestItEndsWhenItIsToldTo(t *testing.T) {
	for name, set := range map[string]func(*fixture){
		"mounting": func(f *fixture) { f.mounter.Block = make(chan struct{}) },
		"waiting for a server": func(f *fixture) {
			f.options.Timeout = time.Hour
			hang(f.t, f.nfs["nfs:/srv"])
		},
		"waiting in the middle": func(f *fixture) { f.options.Timeout, f.hangs = time.Hour, true },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.export("nfs:/srv")
			set(f)
			for i := range 10 {
				f.add(class(fmt.Sprint(i), "nfs", "/srv", nil), class(fmt.Sprint("x", i), "nfs", fmt.Sprintf("/%d", i), nil))
			}
			ended, cancel := context.WithTimeoutCause(ctx, 500*time.Millisecond, errors.New("the user has gone"))
			defer cancel()
			started := time.Now()
			report, err := f.runIn(ended)
			must(t, err)
			if report.ExitStatus() != 2 || !strings.Contains(strings.Join(report.Problems, "\n"), "the user has gone") {
				t.Errorf("%+v", report)
			}
			if took := time.Since(started); took > 15*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

func TestOtherWaysToMountAreTried(t *testing.T) {
	f := newFixture(t)
	f.export("nfs:/srv")
	secret := func(c *storagev1.StorageClass) {
		c.Parameters["csi.storage.k8s.io/provisioner-secret-name"], c.Parameters["csi.storage.k8s.io/provisioner-secret-namespace"] = "s", "ns"
	}
	withSecret := func(pv *v1.PersistentVolume) {
		pv.Annotations["volume.kubernetes.io/provisioner-deletion-secret-name"], pv.Annotations["volume.kubernetes.io/provisioner-deletion-secret-namespace"] = "s", "ns"
		pv.Status.Phase = v1.VolumeReleased
	}
	f.add(class("gold", "nfs", "/srv", secret), pv("pvc-1", "nfs", "/srv", "a", "", withSecret),
		&v1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "s"}, Data: map[string][]byte{"mountOptions": []byte("sec=krb5,hidden")}})
	report := f.run()
	s := report.Shares[0]
	if !s.Reachable || len(f.mounter.Calls()) != 1 || !strings.Contains(strings.Join(f.mounter.Calls()[0].Options, ","), "sec=krb5") {
		t.Errorf("%+v, %+v", s, f.mounter.Calls())
	}
	var out bytes.Buffer
	must(t, errors.Join(report.WriteJSON(&out), report.WriteTable(&out)))
	if strings.Contains(out.String(), "hidden") {
		t.Errorf("shows the secret:\n%s", &out)
	}
}

func TestAnotherShareInItsPlace(t *testing.T) {
	f := newFixture(t)
	srv := f.export("nfs:/srv")
	create(t, srv, clusterID, map[string]string{"pvc-1": "a"})
	f.add(pv("pvc-1", "nfs", "/srv", "a", "ZYXWVUTSRQPONMLKJIHGFEDCBA", nil))
	if faults := f.run().Shares[0].Faults; len(faults) != 1 || !strings.Contains(faults[0], "1 volume was made when it had ZYX") {
		t.Errorf("%q", faults)
	}
}

func TestPremountedSharesAreUsedAsTheyAre(t *testing.T) {
	f := newFixture(t)
	srv := t.TempDir()
	write(t, "x", srv, "orphan", "file")
	f.options.Premounted, f.options.Mounter = map[volume.Share]string{{Server: "nfs", Path: "/srv"}: srv}, nil
	f.add(class("gold", "nfs", "/srv", nil), class("other", "other", "/srv", nil))
	report := f.run()
	if len(report.Shares) != 1 || len(report.Shares[0].Orphans) != 1 || report.Shares[0].Premounted != srv {
		t.Errorf("%+v", report.Shares)
	}
	if other := report.Classes[1]; other.Served || !other.Elsewhere || len(other.Faults) > 0 {
		t.Errorf("%+v", other)
	}
}
