package provision

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"sharevol.dev/sharevol/internal/cluster"
	"sharevol.dev/sharevol/internal/share"
	"sharevol.dev/sharevol/internal/share/dirs"
	"sharevol.dev/sharevol/internal/share/operation"
	"sharevol.dev/sharevol/internal/share/sharetest"
	"sharevol.dev/sharevol/internal/volume"
)

// soil is a server's disk. It is exported as /, and its folder team as /team, by a server
// with two names.
type soil struct {
	*testing.T
	dir string
}

func newSoil(t *testing.T) soil {
	s := soil{T: t, dir: t.TempDir()}
	check(t, os.Mkdir(filepath.Join(s.dir, "team"), 0o755))
	return s
}

// in returns a provisioner of a cluster with these objects, on the real share.Manager.
func (s soil) in(clusterUID string, objects ...runtime.Object) fixture {
	s.Helper()
	return s.with(clusterUID, cluster.Names{Driver: driver, DefaultOnDelete: volume.Delete}, objects...)
}

// with is in for some names.
func (s soil) with(clusterUID string, names cluster.Names, objects ...runtime.Object) fixture {
	s.Helper()
	premounted := map[volume.Share]string{}
	for _, name := range []string{"nfs", "192.0.2.1"} {
		premounted[volume.Share{Server: name, Path: "/"}] = s.dir
		premounted[volume.Share{Server: name, Path: "/team"}] = filepath.Join(s.dir, "team")
	}
	shares := share.NewManager(share.Options{Premounted: premounted})
	s.Cleanup(func() { check(s.T, shares.Close(context.Background())) })
	addresses := map[string]string{"nfs": "192.0.2.1", "other": "192.0.2.2", "192.0.2.1": "192.0.2.1"}
	return fixtureOf(s.T, clusterUID, shares, addresses, names, objects...)
}

func lookupIn(addresses map[string]string) func(context.Context, string) ([]string, error) {
	return func(_ context.Context, host string) ([]string, error) {
		if address, found := addresses[host]; found {
			return []string{address}, nil
		}
		return nil, errors.New("no such host")
	}
}

func asking(uid, server, share, subDir, onDelete string) Request {
	options := requestFor(uid)
	options.Class.Parameters = map[string]string{"server": server, "share": share, "subDir": subDir, "onDelete": onDelete}
	options.Class.MountOptions = nil
	return options
}

// mustProvision makes a volume with a file in it.
func (s soil) mustProvision(p fixture, options Request) (*v1.PersistentVolume, string) {
	s.Helper()
	pv, err := p.Provision(ctx, options)
	check(s.T, err)
	d, _ := p.options.Cluster.DirectoryOf(pv)
	file := filepath.Join(s.dir, d.Full(), "precious")
	check(s.T, os.WriteFile(file, nil, 0o600))
	return pv, file
}

// refused sees that a claim is not served, and that its event has some words in it.
func (s soil) refused(p fixture, options Request, words string) {
	s.Helper()
	pv, err := p.Provision(ctx, options)
	if err == nil || !errors.Is(err, dirs.ErrUntouched) || !strings.Contains(err.Error(), words) {
		s.Errorf("got %v, %v, want %q", pv, err, words)
	}
}

func exists(t *testing.T, path, what string) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

// Two shares of one server, one inside the other, under one name of it or two: no volume
// is made within another's directory, nor around it, nor in it.
func TestSharesWithinShares(t *testing.T) {
	for _, server := range []string{"nfs", "192.0.2.1"} {
		s := newSoil(t)
		outer, file := s.mustProvision(s.in(clusterID), asking("outer", "nfs", "/", "team/ns1", "delete"))
		inner := s.in(clusterID, outer)
		if server == "nfs" { // under the other name only the share itself tells: see the next test
			s.refused(inner, asking("inner", server, "/team", "ns1/notes", "delete"), "is in use by volume pvc-outer")
			s.refused(inner, asking("inner", server, "/team", "ns1", "retain"), "is in use by volume pvc-outer")
		}
		exists(t, file, server)
		check(t, done(s.in(clusterID, outer).Delete(ctx, outer)))
	}
}

// The same in two clusters, which do not know each other, and under two names: what is
// inside another share is not deleted with a directory around it.
func TestDeleteLeavesOtherShares(t *testing.T) {
	for what, second := range map[string]struct{ cluster, server string }{"another cluster": {"cluster-b", "nfs"}, "another name": {clusterID, "192.0.2.1"}} {
		s := newSoil(t)
		outer, _ := s.mustProvision(s.in(clusterID), asking("outer", "nfs", "/", "team/ns1", "delete"))
		objects := []runtime.Object{outer}
		if second.cluster != clusterID {
			objects = nil
		}
		inner, err := s.in(second.cluster, objects...).Provision(ctx, asking("inner", second.server, "/team", "ns1/notes", "delete"))
		if err != nil {
			t.Logf("%s: refused already: %v", what, err)
			continue
		}
		file := filepath.Join(s.dir, "team/ns1/notes/precious")
		check(t, os.WriteFile(file, nil, 0o600))
		if second.cluster == clusterID {
			objects = append(objects, inner)
		} else {
			objects = []runtime.Object{outer}
		}
		if err := done(s.in(clusterID, objects...).Delete(ctx, outer)); err == nil {
			t.Errorf("%s: deleted", what)
		}
		exists(t, file, what)
	}
}

// A volume of another driver, at the same place of a server that is called otherwise.
func TestStaticVolumeUnderAnotherName(t *testing.T) {
	for server, want := range map[string]string{"192.0.2.1": "they have an address in common", "gone": "no such host", "other": ""} {
		s := newSoil(t)
		pv, file := s.mustProvision(s.in(clusterID), asking("a", "nfs", "/", "shared/data", "delete"))
		static := &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "static"}, Spec: v1.PersistentVolumeSpec{PersistentVolumeSource: v1.PersistentVolumeSource{
			NFS: &v1.NFSVolumeSource{Server: server, Path: "/shared"}}}}
		err := done(s.in(clusterID, pv, static).Delete(ctx, pv))
		if want == "" {
			check(t, err)
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "volume static") {
			t.Errorf("%s: %v", server, err)
		}
		exists(t, file, server)
	}
}

// Retained volumes share a directory with one another and with hand-made ones, and with
// nobody else; nothing is above or below them either.
func TestRetainedVolumesAreAmongThemselves(t *testing.T) {
	s := newSoil(t)
	mine, _ := s.mustProvision(s.in(clusterID), asking("mine", "nfs", "/", "team/secret", "delete"))
	for _, place := range []string{"team", "team/secret", "team/secret/below"} {
		s.refused(s.in(clusterID, mine), asking("retained", "nfs", "/", place, "retain"), "is in use by volume pvc-mine")
	}
	one, file := s.mustProvision(s.in(clusterID, mine), asking("one", "nfs", "/", "data", "retain"))
	root := &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "root"}, Spec: v1.PersistentVolumeSpec{PersistentVolumeSource: v1.PersistentVolumeSource{
		CSI: &v1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: "root", VolumeAttributes: map[string]string{"server": "nfs", "share": "/"}}}}}
	two, err := s.in(clusterID, mine, one, root).Provision(ctx, asking("two", "nfs", "/", "data", "retain"))
	check(t, err)
	check(t, done(s.in(clusterID, one, two).Delete(ctx, one))) // with it goes the only record
	s.refused(s.in(clusterID, two), asking("inside", "nfs", "/", "data/inside", "delete"), "is in use by volume pvc-two")
	exists(t, file, "the retained file")
}

// Delete has got to its end, but the controller could not save that: a retained claim
// waits for the volume to be gone, and the repeated Delete finds nothing in its way.
func TestRetainedClaimWaitsForTheDeletedVolume(t *testing.T) {
	s := newSoil(t)
	old, _ := s.mustProvision(s.in(clusterID), asking("old", "nfs", "/", "ns/notes", "delete"))
	next := asking("new", "nfs", "/", "ns/notes", "retain")
	for range 2 {
		s.refused(s.in(clusterID, old), next, "is in use by volume pvc-old")
		check(t, done(s.in(clusterID, old).Delete(ctx, old)))
	}
	_, err := s.in(clusterID).Provision(ctx, next)
	check(t, err)
}

// A volume that was kept (reclaimPolicy Retain) and deleted by hand leaves its record:
// that keeps a claim waiting only until the records are looked through.
func TestRecordOfAVolumeDeletedByHand(t *testing.T) {
	s := newSoil(t)
	_, file := s.mustProvision(s.in(clusterID), asking("old", "nfs", "/", "ns/notes", "delete"))
	check(t, os.RemoveAll(filepath.Dir(file)))
	next := asking("new", "nfs", "/", "ns/notes", "delete")
	p := s.in(clusterID, next.Class)
	s.refused(p, next, "belongs to the volume pvc-old")
	if len(p.conflicts) != 1 {
		t.Error("nobody will look through the records")
	}
	p.sweep(ctx, p.refs(ctx))
	_, err := p.Provision(ctx, next)
	check(t, err)
}

// A hand-made volume has taken the directory of a kept one over, and is empty at the
// moment: the sweep leaves the directory.
func TestSweepLeavesTheDirectoryOfAHandMadeVolume(t *testing.T) {
	s := newSoil(t)
	options := asking("1", "nfs", "/", "notes", "delete")
	pv, err := s.in(clusterID).Provision(ctx, options)
	check(t, err)
	static := &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "static"}, Spec: v1.PersistentVolumeSpec{PersistentVolumeSource: v1.PersistentVolumeSource{
		CSI: &v1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: "static", VolumeAttributes: pv.Spec.CSI.VolumeAttributes}}}}
	p := s.in(clusterID, static, options.Class)
	p.sweep(ctx, p.refs(ctx))
	exists(t, filepath.Join(s.dir, "notes"), "the directory of the hand-made volume")
	records, err := share.Do(ctx, p.options.Shares, share.Ref{Share: volume.Share{Server: "nfs", Path: "/"}}, operation.Records, clusterID)
	if err != nil || len(records) > 0 {
		t.Errorf("records %v, %v", records, err)
	}
}

// Where nobody can tell at the moment whether another volume has the directory, it is
// looked at again later.
func TestSweepWaitsForAnAnswer(t *testing.T) {
	s := newSoil(t)
	options := asking("1", "nfs", "/", "notes", "delete")
	pv, err := s.in(clusterID).Provision(ctx, options)
	check(t, err)
	static := pv.DeepCopy()
	static.Name = "static"
	p := s.in(clusterID, static, options.Class)
	p.options.Client.(*fake.Clientset).PrependReactor("get", "persistentvolumes", func(action clienttesting.Action) (bool, runtime.Object, error) {
		return action.(clienttesting.GetAction).GetName() == "static", nil, errors.New("the API server does not answer")
	})
	if left := p.sweep(ctx, p.refs(ctx)); len(left) != 1 {
		t.Errorf("to be tried again: %v", left)
	}
	exists(t, filepath.Join(s.dir, "notes"), "the directory")
	records, err := share.Do(ctx, p.options.Shares, share.Ref{Share: volume.Share{Server: "nfs", Path: "/"}}, operation.Records, clusterID)
	if err != nil || len(records) != 1 {
		t.Errorf("records %v, %v", records, err)
	}
}

// The first attempt's answer was lost, then the claim changed and its volume was made
// elsewhere: what the first one made is swept.
func TestFirstAttemptElsewhereIsSwept(t *testing.T) {
	shares := sharetest.New(t)
	provisioned(t, shares, "1", "subDir", "first")
	pv := provisioned(t, shares, "1", "subDir", "second")
	claim := &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "notes", UID: "1"}}
	f := fixtureWith(t, shares, pv, claim)
	f.sweep(ctx, f.refs(ctx))
	records, err := share.Do(ctx, shares, share.Ref{Share: volume.Share{Server: "nfs.example.com", Path: "/srv/volumes"}}, operation.Records, clusterID)
	check(t, err)
	if len(records) != 1 || records[0].SubDir != "second" {
		t.Errorf("records %v", records)
	}
}

func TestReleaseWaitsForABusyShare(t *testing.T) {
	shares := sharetest.New(t)
	pv := provisioned(t, shares, "1", "onDelete", "retain", "subDir", "notes")
	shares.Fail(fmt.Errorf("%w: %w", dirs.ErrUntouched, share.ErrBusy))
	if err := done(fixtureWith(t, shares, pv).Delete(ctx, pv)); !errors.Is(err, share.ErrBusy) {
		t.Errorf("got %v", err)
	}
	shares.Fail(errors.New("the server does not answer"))
	check(t, done(fixtureWith(t, shares, pv).Delete(ctx, pv)))
}
