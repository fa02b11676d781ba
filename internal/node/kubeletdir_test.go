package node_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sharevol.dev/sharevol/internal/mount"
)

// No path outside of kubelet's folder is mounted on, unmounted or removed, nor one that
// a link leads out of it.
func TestTargetsOutsideOfKubeletsFolder(t *testing.T) {
	f := newFixture(t)
	elsewhere := t.TempDir()
	victim := filepath.Join(elsewhere, "victim")
	if err := os.Mkdir(victim, 0o700); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(f.kubelet, "link")
	if err := os.Symlink(elsewhere, link); err != nil {
		t.Fatal(err)
	}
	f.mounter.Put(victim, mount.Layer{Source: source, FSType: "nfs4"})
	for name, path := range map[string]string{
		"elsewhere": victim, "by a link": filepath.Join(link, "victim"), "the folder": f.kubelet, "its brother": f.kubelet + "-other/x",
		"dots": f.kubelet + "/../victim", "relative": "pods/x", "trailing slash": f.target + "/", "root": "/", "none": "", "nul": f.kubelet + "/a\x00b",
		"long": f.kubelet + "/" + strings.Repeat("x", 4000),
	} {
		for call, err := range map[string]error{"publish": f.tryPublish(to(path)), "unpublish": f.unpublishFrom(path)} {
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "target_path") {
				t.Errorf("%s: %s: %v", name, call, err)
			}
		}
		_, err := f.node.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: "x", VolumePath: path})
		if want := codes.NotFound; status.Code(err) != want && path != "" {
			t.Errorf("%s: stats: %v", name, err)
		}
	}
	if len(f.mounter.Calls())+len(f.mounter.Unmounts())+len(f.statfs.Calls()) > 0 {
		t.Error("something was done")
	}
	if _, err := os.Lstat(victim); err != nil {
		t.Error(err)
	}
}

// A path inside of a volume is not even looked at: its server may be dead, or lead
// anywhere with a link.
func TestTargetsInsideOfAVolume(t *testing.T) {
	f := newFixture(t)
	f.publish(t)
	path := filepath.Join(f.target, "a", "b")
	for call, err := range map[string]error{"publish": f.tryPublish(to(path)), "unpublish": f.unpublishFrom(path)} {
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "inside of what is mounted") {
			t.Errorf("%s: %v", call, err)
		}
	}
}

// A folder that is a link itself, as on nodes with a disk for kubelet.
func TestKubeletsFolderIsALink(t *testing.T) {
	f := newFixture(t)
	real := f.kubelet
	f.kubelet = filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(real, f.kubelet); err != nil {
		t.Fatal(err)
	}
	f.restart(t)
	linked := f.newTarget(t, "uid", "pvc-1")
	if err := f.tryPublish(to(linked)); err != nil {
		t.Fatal(err)
	}
	if f.mounted(t, f.target) != 1 { // under the name that mountinfo has
		t.Error("not mounted")
	}
	if err := f.unpublishFrom(linked); err != nil || f.mounted(t, f.target) != 0 {
		t.Errorf("unpublish: %v", err)
	}
}

// kubelet makes the parent. Without it the pod is gone.
func TestPublishWithoutAParent(t *testing.T) {
	f := newFixture(t)
	err := f.tryPublish(to(filepath.Join(f.kubelet, "pods", "gone", "volumes", "kubernetes.io~csi", "x", "mount")))
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Lstat(filepath.Join(f.kubelet, "pods", "gone")); !os.IsNotExist(err) {
		t.Errorf("it made kubelet's folders: %v", err)
	}
}

// A subPath's bind mount, a staged volume: of a dead server a look would never end.
func TestPathsBelowOtherMountsAreNotWalked(t *testing.T) {
	f := newFixture(t)
	for _, on := range []string{"pods/u/volume-subpaths/v/c/0", "plugins/kubernetes.io/csi/other/abc/globalmount"} {
		dead := filepath.Join(f.kubelet, on)
		if err := os.MkdirAll(filepath.Join(dead, "sub"), 0o700); err != nil {
			t.Fatal(err)
		}
		f.mounter.Put(dead, mount.Layer{Source: "dead:/x", FSType: "nfs4", Device: "0:77"})
		err := f.unpublishFrom(filepath.Join(dead, "sub", "mount"))
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", on, err)
		}
	}
}

func TestTargetInsideOfAnotherVolume(t *testing.T) {
	f := newFixture(t)
	for _, path := range []string{"kubernetes.io~csi/ceph/mount", "kubernetes.io~empty-dir/scratch"} {
		volume := filepath.Join(f.kubelet, "pods/u/volumes", path)
		if err := os.MkdirAll(filepath.Join(volume, "data", "empty"), 0o700); err != nil {
			t.Fatal(err)
		}
		f.mounter.Put(volume, mount.Layer{Source: "/dev/rbd0", FSType: "ext4", Device: "252:0"})
		err := f.unpublishFrom(filepath.Join(volume, "data", "empty"))
		if _, gone := os.Lstat(filepath.Join(volume, "data", "empty")); gone != nil {
			t.Errorf("unpublish removed a directory inside of the volume %s: %v", path, err)
		}
		if err := f.tryPublish(to(filepath.Join(volume, "data", "new"))); err == nil {
			t.Errorf("publish mounted inside of the volume %s", path)
		}
	}
}
