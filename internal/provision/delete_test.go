package provision

import (
	"errors"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"sharevol.dev/sharevol/internal/cluster"
	"sharevol.dev/sharevol/internal/share"
	"sharevol.dev/sharevol/internal/share/dirs"
	"sharevol.dev/sharevol/internal/share/operation"
	"sharevol.dev/sharevol/internal/share/sharetest"
	"sharevol.dev/sharevol/internal/volume"
)

// provisioned makes a volume as a provisioner of an empty cluster would.
func provisioned(t *testing.T, shares *sharetest.Shares, uid string, parameters ...string) *v1.PersistentVolume {
	t.Helper()
	options := requestFor(uid)
	for i := 0; i < len(parameters); i += 2 {
		options.Class.Parameters[parameters[i]] = parameters[i+1]
	}
	pv, err := fixtureWith(t, shares).Provision(ctx, options)
	check(t, err)
	return pv
}

func TestDeletePolicies(t *testing.T) {
	for policy, left := range map[string][]string{
		"delete":  nil,
		"retain":  {"nfs.example.com:/srv/volumes/pvc-1"},
		"archive": {"nfs.example.com:/srv/volumes/archived-pvc-1/pvc-1"},
	} {
		t.Run(policy, func(t *testing.T) {
			shares := sharetest.New(t)
			pv := provisioned(t, shares, "1", "onDelete", policy)
			f := fixtureWith(t, shares, pv)
			for range 2 {
				check(t, done(f.Delete(ctx, pv)))
				if dirs := shares.Dirs(); !slices.Equal(dirs, left) {
					t.Errorf("left %v", dirs)
				}
			}
		})
	}
}

// csi-driver-nfs CVE-2026-3864, nfs-subdir-external-provisioner #139.
func TestDeleteRefusesWhatItCannotHaveMade(t *testing.T) {
	cases := map[string]func(*v1.PersistentVolume){
		"another volume's":  func(pv *v1.PersistentVolume) { pv.Spec.CSI.VolumeAttributes["subDir"] = "pvc-2" },
		"share root":        func(pv *v1.PersistentVolume) { delete(pv.Spec.CSI.VolumeAttributes, "subDir") },
		"traversal":         func(pv *v1.PersistentVolume) { pv.Spec.CSI.VolumeAttributes["subDir"] = "../pvc-1" },
		"backslash":         func(pv *v1.PersistentVolume) { pv.Spec.CSI.VolumeAttributes["subDir"] = `..\pvc-1` },
		"no share":          func(pv *v1.PersistentVolume) { delete(pv.Spec.CSI.VolumeAttributes, "share") },
		"other driver":      func(pv *v1.PersistentVolume) { pv.Spec.CSI.Driver = "nfs.csi.k8s.io" },
		"no CSI volume":     func(pv *v1.PersistentVolume) { pv.Spec.CSI = nil },
		"redirecting mount": func(pv *v1.PersistentVolume) { pv.Spec.MountOptions = []string{"addr=192.0.2.9"} },
		"renamed volume":    func(pv *v1.PersistentVolume) { pv.Name = "pvc-3" },
		"policy":            func(pv *v1.PersistentVolume) { pv.Spec.CSI.VolumeAttributes["onDelete"] = "shred" },
		"no share id":       func(pv *v1.PersistentVolume) { delete(pv.Annotations, cluster.AnnShareID) },
		"other share id":    func(pv *v1.PersistentVolume) { pv.Annotations[cluster.AnnShareID] = "another" },
		"reserved":          func(pv *v1.PersistentVolume) { pv.Spec.CSI.VolumeAttributes["subDir"] = ".sharevol/owners" },
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			shares := sharetest.New(t)
			pv, other := provisioned(t, shares, "1"), provisioned(t, shares, "2")
			f := fixtureWith(t, shares, other)
			change(pv)
			// Where another volume is recorded, nothing of this one is left: no error.
			if err := deleteSaved(f, pv); (err == nil) != (name == "renamed volume") {
				t.Errorf("got %v", err)
			}
			if dirs := shares.Dirs(); len(dirs) != 2 {
				t.Errorf("directories %v", dirs)
			}
		})
	}
}

// Another volume of the cluster, of whatever driver, at, above or below the directory.
func TestDeleteSparesWhatAnotherVolumeUses(t *testing.T) {
	csi := func(driver string, attributes ...string) v1.PersistentVolumeSource {
		m := map[string]string{}
		for i := 0; i < len(attributes); i += 2 {
			m[attributes[i]] = attributes[i+1]
		}
		return v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: "x", VolumeAttributes: m}}
	}
	nfs := func(server, path string) v1.PersistentVolumeSource {
		return v1.PersistentVolumeSource{NFS: &v1.NFSVolumeSource{Server: server, Path: path}}
	}
	inUse := map[string]v1.PersistentVolumeSource{
		"the same":             csi(driver, "server", "nfs.example.com", "share", "/srv/volumes", "subDir", "a/b"),
		"joined elsewhere":     csi(driver, "server", "nfs.example.com", "share", "/srv/volumes/a", "subDir", "b"),
		"above":                csi(driver, "server", "nfs.example.com.", "share", "/srv/volumes", "subDir", "a"),
		"the share root":       csi(driver, "server", "NFS.example.com", "share", "/srv/volumes/"),
		"below":                csi(driver, "server", "nfs.example.com", "share", "/srv/volumes", "subDir", "a/b/c"),
		"csi-driver-nfs":       csi("nfs.csi.k8s.io", "Server", "nfs.example.com", "SHARE", "/srv/volumes", "subdir", "/a/b/"),
		"in-tree":              nfs("nfs.example.com", "/srv/volumes/a/b/c/d"),
		"in-tree, server root": nfs("nfs.example.com", "/"),
	}
	apart := map[string]v1.PersistentVolumeSource{
		"beside":         csi(driver, "server", "nfs.example.com", "share", "/srv/volumes", "subDir", "a/bc"),
		"another server": csi(driver, "server", "other.example.com", "share", "/srv/volumes", "subDir", "a/b"),
		"no NFS volume":  {HostPath: &v1.HostPathVolumeSource{Path: "/srv/volumes/a/b"}},
	}
	try := func(t *testing.T, source v1.PersistentVolumeSource) (*sharetest.Shares, fixture, *v1.PersistentVolume, error) {
		shares := sharetest.New(t)
		pv := provisioned(t, shares, "1", "subDir", "a/b")
		other := &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "other"}, Spec: v1.PersistentVolumeSpec{PersistentVolumeSource: source}}
		f := fixtureWith(t, shares, pv, other)
		return shares, f, pv, done(f.Delete(ctx, pv))
	}
	for name, source := range inUse {
		t.Run(name, func(t *testing.T) {
			shares, f, pv, err := try(t, source)
			if err == nil || !strings.Contains(err.Error(), "volume other") || !strings.Contains(err.Error(), "left as it is") {
				t.Errorf("got %v", err)
			}
			if len(shares.Dirs()) != 1 {
				t.Error("removed")
			}
			check(t, f.client.CoreV1().PersistentVolumes().Delete(ctx, "other", metav1.DeleteOptions{}))
			check(t, done(f.Delete(ctx, pv))) // whatever the cache still says
		})
	}
	for name, source := range apart {
		t.Run(name, func(t *testing.T) {
			if shares, _, _, err := try(t, source); err != nil || len(shares.Dirs()) > 0 {
				t.Errorf("%v, left %v", err, shares.Dirs())
			}
		})
	}
}

// One share under two names of its server is known by its id.
func TestDeleteKnowsTheShareByItsID(t *testing.T) {
	shares := sharetest.New(t)
	pv := provisioned(t, shares, "1", "subDir", "a/b")
	other := pv.DeepCopy()
	other.Name, other.Spec.CSI.VolumeAttributes["server"] = "other", "alias.example.com"
	other.Spec.CSI.VolumeAttributes["share"] = "/exports/srv/volumes"
	if err := done(fixtureWith(t, shares, pv, other).Delete(ctx, pv)); err == nil || !strings.Contains(err.Error(), "volume other") {
		t.Errorf("got %v", err)
	}
}

// The cache shows a volume for a moment after its deletion. Its place may be another's by
// then: that is no failure, and no event.
func TestDeleteOfAVolumeThatIsGoneAndReplaced(t *testing.T) {
	shares := sharetest.New(t)
	gone := provisioned(t, shares, "1", "subDir", "a/b")
	next := gone.DeepCopy()
	next.Name = "pvc-next"
	f := fixtureWith(t, shares, gone, next)
	check(t, f.client.CoreV1().PersistentVolumes().Delete(ctx, gone.Name, metav1.DeleteOptions{}))
	if err := f.Delete(ctx, gone); !errors.Is(err, ErrGone) {
		t.Errorf("got %v", err)
	}
	if there := shares.Dirs(); len(there) != 1 {
		t.Errorf("left %v", there)
	}
}

// A server that is gone for good does not keep a volume whose data is to stay.
func TestRetainNeedsNoServer(t *testing.T) {
	shares := sharetest.New(t)
	pv := provisioned(t, shares, "1", "onDelete", "retain")
	shares.Fail(errors.Join(dirs.ErrUntouched, share.ErrNoAnswer))
	check(t, done(fixtureWith(t, shares, pv).Delete(ctx, pv)))
}

func TestRecordsWithoutVolumeAndClaimAreDropped(t *testing.T) {
	shares := sharetest.New(t)
	var objects []runtime.Object
	for _, uid := range []string{"saved", "waiting", "lost"} {
		pv := provisioned(t, shares, uid)
		switch uid {
		case "saved":
			objects = append(objects, pv)
		case "waiting":
			objects = append(objects, &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: uid, UID: "waiting"}})
		}
	}
	class := requestFor("x").Class
	f := fixtureWith(t, shares, append(objects, class)...)
	f.sweep(ctx, f.refs(ctx))
	records, err := share.Do(ctx, shares, share.Ref{Share: volume.Share{Server: "nfs.example.com", Path: "/srv/volumes"}}, operation.Records, clusterID)
	check(t, err)
	var names []string
	for _, record := range records {
		names = append(names, record.Owner.Volume)
	}
	slices.Sort(names)
	if !slices.Equal(names, []string{"pvc-saved", "pvc-waiting"}) {
		t.Errorf("records of %v", names)
	}
}

// The controller goes by a cache, which may lag behind what somebody has decided.
func TestDeleteAsksWhetherTheVolumeIsToGoStill(t *testing.T) {
	for name, change := range map[string]func(f fixture, pv *v1.PersistentVolume) error{
		"kept": func(f fixture, pv *v1.PersistentVolume) error {
			pv.Spec.PersistentVolumeReclaimPolicy = v1.PersistentVolumeReclaimRetain
			_, err := f.client.CoreV1().PersistentVolumes().Update(ctx, pv, metav1.UpdateOptions{})
			return err
		},
		"another": func(f fixture, pv *v1.PersistentVolume) error {
			pv.UID = "another"
			_, err := f.client.CoreV1().PersistentVolumes().Update(ctx, pv, metav1.UpdateOptions{})
			return err
		},
		"gone": func(f fixture, pv *v1.PersistentVolume) error {
			return f.client.CoreV1().PersistentVolumes().Delete(ctx, pv.Name, metav1.DeleteOptions{})
		},
		"not known": func(f fixture, _ *v1.PersistentVolume) error {
			f.client.PrependReactor("get", "persistentvolumes", func(clienttesting.Action) (bool, runtime.Object, error) {
				return true, nil, errors.New("the API server does not answer")
			})
			return nil
		},
	} {
		for _, policy := range []string{"delete", "archive"} {
			shares := sharetest.New(t)
			pv := provisioned(t, shares, "1", "onDelete", policy)
			f := fixtureWith(t, shares, pv)
			check(t, change(f, pv.DeepCopy()))
			err := f.Delete(ctx, pv)
			if err == nil || errors.Is(err, ErrGone) != (name == "gone") {
				t.Errorf("%s, %s: %v", name, policy, err)
			}
			if dirs := shares.Dirs(); !slices.Equal(dirs, []string{"nfs.example.com:/srv/volumes/pvc-1"}) {
				t.Errorf("%s, %s: directories %v", name, policy, dirs)
			}
		}
	}
}
