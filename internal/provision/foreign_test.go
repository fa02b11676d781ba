package provision

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"sharevol.dev/sharevol/internal/cluster"
	"sharevol.dev/sharevol/internal/cluster/clustertest"
	"sharevol.dev/sharevol/internal/share/dirs"
	"sharevol.dev/sharevol/internal/share/sharetest"
	"sharevol.dev/sharevol/internal/volume"
)

const csiDriverNFS = "nfs.csi.k8s.io"

// Ids of shares, in the form that sharevol gives them.
const anID, anotherID = "AAAAAAAAAAAAAAAAAAAAAAAAAA", "BBBBBBBBBBBBBBBBBBBBBBBBBB"

// named returns the fixture with another of its names; csi-driver-nfs's stands for a
// driver that has this name.
func (f fixture) named(name string) fixture {
	for _, format := range f.options.Cluster.Formats() {
		if format.Provisioner() == name {
			f.format = format
			return f
		}
	}
	f.format = cluster.Names{Driver: name, DefaultOnDelete: volume.Delete}.Formats(nil)[0]
	return f
}

// Each file of testdata/volumes is a PersistentVolume as another provisioner has made
// it or a stranger would, whose directory, with data, is on its share beside others.
// The text file beside it says what deleting it comes to. UPDATE_GOLDEN=1 rewrites it.
func TestForeignVolumes(t *testing.T) {
	files, err := filepath.Glob("testdata/volumes/*.yaml")
	if err != nil || len(files) < 20 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			var pv v1.PersistentVolume
			read(t, file, &pv)
			pv.Status.Phase = v1.VolumeReleased
			shares := sharetest.New(t)
			before := stock(shares)
			f := fixtureWith(t, shares, append(clustertest.AdoptedClasses(), &pv)...)
			outcome := "deleted\n"
			if err := done(f.named(pv.Annotations[cluster.AnnProvisionedBy]).Delete(ctx, &pv)); err != nil {
				outcome = "refused: " + err.Error() + "\n"
			}
			after := shares.Dirs()
			for _, dir := range before {
				if !slices.Contains(after, dir) {
					outcome += "gone: " + dir + "\n"
				}
			}
			for _, dir := range after {
				if !slices.Contains(before, dir) {
					outcome += "new: " + dir + "\n"
				}
			}
			compare(t, strings.TrimSuffix(file, ".yaml")+".txt", []byte(outcome))
			if strings.HasPrefix(outcome, "refused") && !slices.Equal(before, after) {
				t.Errorf("refused, and yet it was %v and is %v", before, after)
			}
		})
	}
}

// stock puts what the volumes of the tests have, and what they must not touch, on the shares.
func stock(shares *sharetest.Shares) []string {
	for path, subDirs := range map[string][]volume.SubDir{
		"/srv/k8s": {"team-data-pvc-1", "victim", "a/b/team-data", "b/team-data", "team-data"},
		"/export":  {"pvc-1", "victim", "team/data", "pvc-2"},
		"/":        {"pvc-1", "export", "srv"},
		"/other":   {"pvc-1"},
	} {
		for _, subDir := range subDirs {
			shares.Put(volume.Share{Server: "nfs.example.com", Path: path}, subDir)
		}
	}
	return shares.Dirs()
}

// For a volume that has no record, all the other volumes of the cluster decide: one
// at, above or below its place, of whatever kind, keeps the data.
func TestForeignVolumesSpareWhatAnotherVolumeUses(t *testing.T) {
	csi := func(handle string, attributes map[string]string) v1.PersistentVolumeSource {
		return v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{Driver: csiDriverNFS, VolumeHandle: handle, VolumeAttributes: attributes}}
	}
	nfs := func(path string) v1.PersistentVolumeSource {
		return v1.PersistentVolumeSource{NFS: &v1.NFSVolumeSource{Server: "NFS.example.com.", Path: path}}
	}
	for name, source := range map[string]v1.PersistentVolumeSource{
		"in-tree":               nfs("/srv/k8s/a/b/team-data"),
		"above":                 nfs("/srv/k8s/a"),
		"below":                 nfs("/srv/k8s/a/b/team-data/x"),
		"the share":             nfs("/srv/k8s"),
		"the server":            nfs("/"),
		"csi-driver-nfs":        csi("x", map[string]string{"server": "nfs.example.com", "share": "/srv", "SubDir": "k8s/a/b/team-data/"}),
		"its first form":        csi("x", map[string]string{"server": "nfs.example.com", "share": "/srv/k8s/a/b/team-data"}),
		"by its handle alone":   csi("nfs.example.com#srv/k8s#a/b/team-data##", nil),
		"by an old handle":      csi("nfs.example.com/srv/k8s/a/b/team-data", nil),
		"with a lying handle":   csi("nfs.example.com#elsewhere#x##", map[string]string{"server": "nfs.example.com", "share": "/srv/k8s/a", "subDir": "b"}),
		"leading out and again": csi("x", map[string]string{"server": "nfs.example.com", "share": "/srv/x", "subDir": "../k8s/a/b"}),
	} {
		t.Run(name, func(t *testing.T) {
			shares := sharetest.New(t)
			before := stock(shares)
			pv := clustertest.AdoptedVolume("pvc-1", "/srv/k8s/a/b/team-data", "nfs-delete")
			other := &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "other"}, Spec: v1.PersistentVolumeSpec{PersistentVolumeSource: source}}
			f := fixtureWith(t, shares, append(clustertest.AdoptedClasses(), pv, other)...)
			err := done(f.named(clustertest.Adopted.Name).Delete(ctx, pv))
			if err == nil || !strings.Contains(err.Error(), "is in use by volume other") {
				t.Errorf("got %v", err)
			}
			if after := shares.Dirs(); !slices.Equal(after, before) {
				t.Errorf("left %v", after)
			}
			check(t, f.client.CoreV1().PersistentVolumes().Delete(ctx, "other", metav1.DeleteOptions{}))
			for range 2 {
				check(t, done(f.named(clustertest.Adopted.Name).Delete(ctx, pv)))
			}
			if after := shares.Dirs(); len(after) != len(before)-1 {
				t.Errorf("left %v", after)
			}
		})
	}
}

// A share that has never been sharevol's, or has another id than the volumes on it
// say, may be another one: a missing directory is no success there.
func TestForeignVolumeThatIsMissing(t *testing.T) {
	shares := sharetest.New(t)
	pv := clustertest.AdoptedVolume("pvc-9", "/srv/k8s/missing", "nfs-delete")
	f := fixtureWith(t, shares, append(clustertest.AdoptedClasses(), pv)...)
	if err := done(f.named(clustertest.Adopted.Name).Delete(ctx, pv)); err == nil || !strings.Contains(err.Error(), "is not there") {
		t.Errorf("got %v", err)
	}
	shares.SetID(clustertest.Adopted.Share, anID)
	check(t, done(f.named(clustertest.Adopted.Name).Delete(ctx, pv)))

	ours := clustertest.AdoptedVolume("pvc-8", "/srv/k8s/ours", "nfs-delete")
	ours.Annotations[cluster.AnnShareID] = anID
	stock(shares)
	shares.SetID(clustertest.Adopted.Share, anotherID)
	there := clustertest.AdoptedVolume("pvc-1", "/srv/k8s/victim", "nfs-delete")
	f = fixtureWith(t, shares, append(clustertest.AdoptedClasses(), there, ours)...)
	if err := done(f.named(clustertest.Adopted.Name).Delete(ctx, there)); err == nil || !errors.Is(err, dirs.ErrOtherShare) {
		t.Errorf("got %v", err)
	}
}

// New volumes of an adopted class are what the old provisioner could serve again: its
// source and no other. They are recorded on the share, and what becomes of them is fixed.
func TestAdoptedClassMakesInTreeVolumes(t *testing.T) {
	shares := sharetest.New(t)
	f := fixtureWith(t, shares)
	options := request1()
	options.Class.Provisioner = clustertest.Adopted.Name
	options.Class.Parameters = map[string]string{"pathPattern": "${.PVC.namespace}/${.PVC.name}", "onDelete": "delete"}
	p := f.named(clustertest.Adopted.Name)
	pv, err := p.Provision(ctx, options)
	check(t, err)
	if pv.Spec.CSI != nil || pv.Spec.NFS == nil || *pv.Spec.NFS != (v1.NFSVolumeSource{Server: "nfs.example.com", Path: "/srv/k8s/default/notes"}) {
		t.Errorf("source %v", pv.Spec.PersistentVolumeSource)
	}
	if again, err := p.Provision(ctx, options); err != nil || again.String() != pv.String() {
		t.Errorf("%v, %v", again, err)
	}
	pv.Annotations[cluster.AnnProvisionedBy] = clustertest.Adopted.Name
	f = fixtureWith(t, shares, pv) // without its class, which the old one would need
	if id := f.options.Cluster.ShareID(clustertest.Adopted.Share); id == "" || id != pv.Annotations[cluster.AnnShareID] {
		t.Errorf("the share's id %q", id)
	}
	if refs := f.refs(ctx); len(refs) != 1 || refs[0].Share != clustertest.Adopted.Share {
		t.Errorf("looks for records on %v", refs)
	}
	moved := pv.DeepCopy()
	moved.Spec.NFS.Path = "/srv/k8s/victim"
	shares.Put(clustertest.Adopted.Share, "victim")
	if err := done(f.named(clustertest.Adopted.Name).Delete(ctx, moved)); err == nil {
		t.Error("a volume whose path was changed is deleted")
	}
	check(t, done(f.named(clustertest.Adopted.Name).Delete(ctx, pv)))
	if dirs := shares.Dirs(); !slices.Equal(dirs, []string{"nfs.example.com:/srv/k8s/victim"}) {
		t.Errorf("left %v", dirs)
	}
}

// What comes to the place of a volume whose directory is gone, while the volume is not
// yet, is somebody else's: another provisioner or a person may have made it.
func TestForeignVolumeIsDeletedOnce(t *testing.T) {
	shares := sharetest.New(t)
	stock(shares)
	pv := clustertest.AdoptedVolume("pvc-1", "/srv/k8s/victim", "nfs-delete")
	pv.UID = "first"
	f := fixtureWith(t, shares, append(clustertest.AdoptedClasses(), pv)...)
	p := f.named(clustertest.Adopted.Name)
	keepDeleted(f.client)
	check(t, done(p.Delete(ctx, pv)))
	shares.Put(clustertest.Adopted.Share, "victim")
	check(t, done(p.Delete(ctx, pv)))
	if !slices.Contains(shares.Dirs(), "nfs.example.com:/srv/k8s/victim") {
		t.Error("what came later is gone")
	}
	later := clustertest.AdoptedVolume("pvc-1", "/srv/k8s/victim", "nfs-delete")
	later.UID = "a later one of this name"
	_, err := f.client.CoreV1().PersistentVolumes().Update(ctx, later, metav1.UpdateOptions{})
	check(t, err)
	check(t, done(p.Delete(ctx, later)))
	if slices.Contains(shares.Dirs(), "nfs.example.com:/srv/k8s/victim") {
		t.Error("a later volume of this name is not deleted")
	}
}

// A claim of one name never gets what a volume of another name has.
func TestNamesKeepOutOfEachOthersWay(t *testing.T) {
	shares := sharetest.New(t)
	pv := clustertest.AdoptedVolume("pvc-5", "/srv/k8s/default/notes", "nfs-client")
	f := fixtureWith(t, shares, append(clustertest.AdoptedClasses(), pv)...)
	options := request1()
	options.Class.Parameters = map[string]string{"server": "nfs.example.com", "share": "/srv", "subDir": "k8s/${pvc.metadata.namespace}/${pvc.metadata.name}"}
	if _, err := f.Provision(ctx, options); err == nil || !strings.Contains(err.Error(), "in use by volume pvc-5") {
		t.Errorf("got %v", err)
	}
	options.Class.Provisioner = clustertest.Adopted.Name
	options.Class.Parameters = map[string]string{"pathPattern": "${.PVC.namespace}/${.PVC.name}"}
	if _, err := f.named(clustertest.Adopted.Name).Provision(ctx, options); err == nil || !strings.Contains(err.Error(), "in use by volume pvc-5") {
		t.Errorf("got %v", err)
	}
}

// Each volume's YAML is strict, so that no misspelt field makes a test of nothing.
func TestVolumesOfTestdataAreWhatTheySay(t *testing.T) {
	files, _ := filepath.Glob("testdata/volumes/*.yaml")
	for _, file := range files {
		data, err := os.ReadFile(file)
		check(t, err)
		var pv v1.PersistentVolume
		if err := yaml.UnmarshalStrict(data, &pv); err != nil || pv.Name == "" || pv.Annotations[cluster.AnnProvisionedBy] == "" {
			t.Errorf("%s: %v", file, err)
		}
	}
}
