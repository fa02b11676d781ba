package node_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sharevol.dev/sharevol/internal/mount"
)

func TestUnpublishValidates(t *testing.T) {
	f := newFixture(t)
	_, err := f.node.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{TargetPath: "/"})
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "volume_id") || !strings.Contains(err.Error(), "target_path") {
		t.Errorf("got %v", err)
	}
}

// csi-driver-nfs #601: the old pod of a volume goes while the new one uses it.
func TestUnpublishLeavesOtherTargetsAlone(t *testing.T) {
	f := newFixture(t)
	other := f.newTarget(t, "new", "pvc-1")
	f.publish(t)
	if err := f.tryPublish(to(other)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := f.unpublish(); err != nil {
			t.Fatal(err)
		}
	}
	if f.mounted(t, other) != 1 || f.mounted(t, f.target) != 0 {
		t.Error("the wrong one was unmounted")
	}
	if _, err := os.Lstat(other); err != nil {
		t.Error(err)
	}
}

// csi-driver-nfs #569, aws-fsx-csi-driver #495: a server that is dead keeps nobody from
// unpublishing, and no call of ours asks it. The mount was made by an earlier process.
func TestUnpublishDoesNotLookAtTheMount(t *testing.T) {
	f := newFixture(t)
	f.publish(t)
	f.statfs.Kill(f.target)
	defer f.statfs.Revive(f.target)
	f.restart(t)
	if err := f.unpublish(); err != nil {
		t.Error(err)
	}
	if asked := f.statfs.Calls(); len(asked) > 0 {
		t.Errorf("asked %v", asked)
	}
}

func TestFailedUnmountIsRetried(t *testing.T) {
	f := newFixture(t)
	f.publish(t)
	f.mounter.Fail(f.target, fmt.Errorf("umount: %w", errors.New("target is busy")))
	if err := f.unpublish(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "busy") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Lstat(f.target); err != nil {
		t.Errorf("the target is gone from under its mount: %v", err)
	}
	f.mounter.Fail(f.target, nil)
	if err := f.unpublish(); err != nil {
		t.Error(err)
	}
}

// Several layers, and such as are no NFS.
func TestUnpublishTakesEveryLayer(t *testing.T) {
	f := newFixture(t)
	f.publish(t)
	f.mounter.Put(f.target, mount.Layer{Source: "tmpfs", FSType: "tmpfs"})
	f.mounter.Put(f.target, mount.Layer{Source: source, FSType: "nfs4"})
	if err := f.unpublish(); err != nil {
		t.Fatal(err)
	}
	if n := f.mounted(t, f.target); n > 0 {
		t.Errorf("%d layers are left", n)
	}
}

func TestUnpublishOfWhatIsGone(t *testing.T) {
	f := newFixture(t)
	for name, target := range map[string]string{
		"the target": f.target,
		"the pod":    filepath.Join(f.kubelet, "pods", "gone", "volumes", "kubernetes.io~csi", "x", "mount"),
		"the volume": filepath.Join(f.kubelet, "pods", "uid", "volumes", "kubernetes.io~csi", "gone", "mount"),
	} {
		if err := f.unpublishFrom(target); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// All pods' folder, which is a mount in the plugin's container: with it all volumes of
// the node would go. Others' volumes.
func TestUnpublishOfWhatIsNotOurs(t *testing.T) {
	f := newFixture(t)
	for _, path := range []string{"pods", "pods/u/volumes/kubernetes.io~projected/token", "pods/u/volumes/kubernetes.io~csi/ceph/mount"} {
		on := filepath.Join(f.kubelet, path)
		if err := os.MkdirAll(on, 0o700); err != nil {
			t.Fatal(err)
		}
		f.mounter.Put(on, mount.Layer{Source: "tmpfs", FSType: "tmpfs", Device: "0:33"})
		err := f.unpublishFrom(on)
		if f.mounted(t, on) == 0 {
			t.Errorf("%s, a tmpfs, was unmounted: %v", path, err)
		}
	}
}
