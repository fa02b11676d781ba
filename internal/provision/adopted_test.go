package provision

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"sharevol.dev/sharevol/internal/cluster"
	"sharevol.dev/sharevol/internal/cluster/clustertest"
	"sharevol.dev/sharevol/internal/share"
	"sharevol.dev/sharevol/internal/share/dirs"
	"sharevol.dev/sharevol/internal/share/operation"
	"sharevol.dev/sharevol/internal/share/sharetest"
	"sharevol.dev/sharevol/internal/volume"
)

// teamProvisioner is adopted with the share /team of the soil.
var teamProvisioner = volume.Adoption{Name: "example.com/team", Share: volume.Share{Server: "nfs", Path: "/team"}}

// adopting is in with teamProvisioner adopted, and its Provisioner.
func (s soil) adopting(objects ...runtime.Object) (ours, theirs fixture) {
	s.Helper()
	objects = append(objects, &storagev1.StorageClass{
		ObjectMeta: metav1.ObjectMeta{Name: "team"}, Provisioner: teamProvisioner.Name, Parameters: map[string]string{"archiveOnDelete": "false"},
	})
	ours = s.with(clusterID, cluster.Names{Driver: driver, DefaultOnDelete: volume.Delete, Adopted: []volume.Adoption{teamProvisioner}}, objects...)
	theirs = ours
	theirs.format = ours.options.Cluster.Formats()[1]
	return ours, theirs
}

// old makes the directory of a volume of teamProvisioner with a file in it.
func (s soil) old(path string) (*v1.PersistentVolume, string) {
	s.Helper()
	pv := clustertest.AdoptedVolume("pvc-old", path, "team")
	pv.Annotations[cluster.AnnProvisionedBy], pv.Spec.NFS.Server = teamProvisioner.Name, "nfs"
	file := filepath.Join(s.dir, path, "precious")
	check(s.T, os.MkdirAll(filepath.Dir(file), 0o755))
	check(s.T, os.WriteFile(file, nil, 0o600))
	return pv, file
}

// No new volume is made in the directory of one that another provisioner made, nor
// around it, under any class of any name; only a retained one may join it.
func TestNothingIsMadeAroundForeignVolumes(t *testing.T) {
	s := newSoil(t)
	pv, file := s.old("/team/ns/notes")
	ours, theirs := s.adopting(pv)
	for _, subDir := range []string{"ns", "ns/notes", "ns/notes/in/it"} {
		s.refused(ours, asking("new", "nfs", "/", "team/"+subDir, "delete"), "is in use by volume pvc-old")
		options := requestFor("new")
		options.Class.Parameters, options.Class.MountOptions = map[string]string{"pathPattern": subDir}, nil
		s.refused(theirs, options, "is in use by volume pvc-old")
	}
	s.refused(ours, asking("new", "nfs", "/", "team/ns", "retain"), "is in use by volume pvc-old")
	if entries, err := os.ReadDir(filepath.Dir(file)); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
	_, err := ours.Provision(ctx, asking("new", "nfs", "/", "team/ns/notes", "retain"))
	check(t, err)
	// One that has a whole share, or more, keeps no claim from being served.
	for i, path := range []string{"/team", "/"} {
		pv.Spec.NFS.Path = path
		ours, _ := s.adopting(pv)
		_, err := ours.Provision(ctx, asking(fmt.Sprint(i), "nfs", "/team", fmt.Sprint("beside-", i), "delete"))
		check(t, err)
	}
}

// The server of another volume may be the same one under another name: then the data of a
// foreign volume stays, as that of any other. It also keeps the others'.
func TestForeignVolumesAndServersOfTwoNames(t *testing.T) {
	s := newSoil(t)
	pv, file := s.old("/team/ns/notes")
	for server, want := range map[string]string{"192.0.2.1": "they have an address in common", "unknown": "no such host", "other": ""} {
		second := clustertest.AdoptedVolume("pvc-second", "/team/ns", "")
		second.Annotations, second.Spec.NFS.Server = nil, server
		_, theirs := s.adopting(pv, second)
		err := done(theirs.Delete(ctx, pv))
		if want != "" {
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "pvc-second") {
				t.Errorf("%s: %v", server, err)
			}
			exists(t, file, server)
			continue
		}
		check(t, err)
		if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", server, err)
		}
		pv, file = s.old("/team/ns/notes") // for those that come after
	}
	s = newSoil(t)
	mine, precious := s.mustProvision(s.in(clusterID), asking("mine", "192.0.2.1", "/", "team/ns/mine", "delete"))
	above, _ := s.old("/team/ns")
	ours, _ := s.adopting(mine, above)
	if err := done(ours.Delete(ctx, mine)); err == nil || !strings.Contains(err.Error(), "is in use by volume pvc-old") {
		t.Errorf("got %v", err)
	}
	exists(t, precious, "below a foreign volume of another name")
}

// A deletion of a foreign volume that a crash has interrupted has left a record. The sweep
// keeps it as long as the volume is there, and then drops it and no data.
func TestSweepAndForeignVolumes(t *testing.T) {
	s := newSoil(t)
	pv, _ := s.old("/team/ns/notes")
	ours, _ := s.adopting(pv)
	ref := share.Ref{Share: teamProvisioner.Share}
	target := dirs.Target{SubDir: "ns/notes", Owner: dirs.Owner{Cluster: clusterID, Volume: "pvc-old"}}
	records := func(p fixture) int {
		t.Helper()
		found, err := share.Do(ctx, p.options.Shares, ref, operation.Records, clusterID)
		check(t, err)
		return len(found)
	}
	created, err := share.Do(ctx, ours.options.Shares, ref, operation.Create, dirs.Create{SubDir: target.SubDir, Owner: target.Owner, Retain: true, UID: -1, GID: -1})
	check(t, err)
	if created.Made || records(ours) != 1 {
		t.Fatalf("%+v, %d records", created, records(ours))
	}
	check(t, ours.dropRecordsOn(ctx, ref))
	if records(ours) != 1 {
		t.Error("the record of a volume that is there is dropped")
	}
	if refs := ours.refs(ctx); len(refs) != 1 || refs[0].Share != teamProvisioner.Share {
		t.Errorf("looks for records on %v", refs)
	}
	gone, _ := s.adopting()
	check(t, gone.dropRecordsOn(ctx, ref))
	if records(gone) != 0 {
		t.Error("the record of a volume that is gone stays")
	}
	exists(t, filepath.Join(s.dir, "team/ns/notes/precious"), "what is there")
}

// A volume of an adopted class that is retained may be joined by another one.
func TestRetainedVolumesOfAnAdoptedClass(t *testing.T) {
	shares := sharetest.New(t)
	f := fixtureWith(t, shares)
	options := func(uid, policy string) Request {
		options := requestFor(uid)
		options.Class.Parameters = map[string]string{"pathPattern": "kept", "onDelete": policy}
		return options
	}
	pv, err := f.named(clustertest.Adopted.Name).Provision(ctx, options("1", "retain"))
	check(t, err)
	pv.Annotations[cluster.AnnProvisionedBy] = clustertest.Adopted.Name
	f = fixtureWith(t, shares, pv)
	_, err = f.named(clustertest.Adopted.Name).Provision(ctx, options("2", "retain"))
	check(t, err)
	if _, err := f.named(clustertest.Adopted.Name).Provision(ctx, options("3", "delete")); err == nil || !strings.Contains(err.Error(), "is in use by volume pvc-1") {
		t.Errorf("got %v", err)
	}
}

// A record in the way of a foreign volume's deletion may be one that nobody has deleted
// in order: the records are looked through.
func TestForeignVolumeInConflictHasTheRecordsLookedThrough(t *testing.T) {
	shares := sharetest.New(t)
	pv := clustertest.AdoptedVolume("pvc-9", "/srv/k8s/ns", "nfs-delete")
	f := fixtureWith(t, shares, append(clustertest.AdoptedClasses(), pv)...)
	_, err := share.Do(ctx, shares, share.Ref{Share: clustertest.Adopted.Share}, operation.Create, dirs.Create{SubDir: "ns/below", Owner: dirs.Owner{Cluster: clusterID, Volume: "pvc-gone"}, UID: -1, GID: -1})
	check(t, err)
	if err := done(f.named(clustertest.Adopted.Name).Delete(ctx, pv)); !errors.Is(err, dirs.ErrConflict) {
		t.Errorf("got %v", err)
	}
	if len(f.conflicts) != 1 {
		t.Error("nobody is told")
	}
}
