package node_test

import (
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sharevol.dev/sharevol/internal/mount"
)

// mode has a request publish on another target with an access mode.
func mode(target string, mode csi.VolumeCapability_AccessMode_Mode) func(*csi.NodePublishVolumeRequest) {
	return func(r *csi.NodePublishVolumeRequest) {
		r.TargetPath = target
		r.VolumeCapability.AccessMode.Mode = mode
	}
}

const single = csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER

// ReadWriteOncePod is for one pod; all other modes are for any number on a node.
func TestAccessModes(t *testing.T) {
	for value, name := range csi.VolumeCapability_AccessMode_Mode_name {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.publish(t)
			other := f.newTarget(t, "other", "pvc-1")
			want := codes.OK
			if csi.VolumeCapability_AccessMode_Mode(value) == single {
				want = codes.FailedPrecondition
			}
			for range 2 { // which says the same
				if err := f.tryPublish(mode(other, csi.VolumeCapability_AccessMode_Mode(value))); status.Code(err) != want {
					t.Errorf("got %v, want %v", err, want)
				}
			}
			if err := f.unpublish(); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := f.tryPublish(mode(other, csi.VolumeCapability_AccessMode_Mode(value))); err != nil {
					t.Errorf("once it is free: %v", err)
				}
			}
		})
	}
}

// What counts is the same directory on a target of a CSI volume.
func TestSingleWriterBesideOtherMounts(t *testing.T) {
	f := newFixture(t)
	f.mounter.Put(f.newTarget(t, "other", "pvc-2"), mount.Layer{Source: "nfs:/srv/pvc-2", FSType: "nfs4", Device: "0:50"})
	f.mounter.Put(f.newTarget(t, "other", "pvc-3"), mount.Layer{Source: "other:/srv/pvc-1", FSType: "nfs4", Device: "0:51"})
	f.mounter.Put(f.kubelet+"/pods/x/volumes/kubernetes.io~nfs/x", mount.Layer{Source: source, FSType: "nfs4", Device: "0:50"})
	f.mounter.Put("/mnt/volumes/kubernetes.io~csi/x/mount", mount.Layer{Source: source, FSType: "nfs4", Device: "0:50"})
	if err := f.tryPublish(mode(f.target, single)); err != nil {
		t.Error(err)
	}
}

// The kernel shows a mount under another name of its server where that came first. That
// it is the same directory shows once it is mounted: it is unmounted again.
func TestSingleWriterUnderAnotherName(t *testing.T) {
	f := newFixture(t)
	f.mounter.ShownAs = map[string]string{source: "alias:/srv/pvc-1"}
	f.publish(t)
	other := f.newTarget(t, "other", "pvc-1")
	if err := f.tryPublish(mode(other, single)); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("got %v", err)
	}
	if f.mounted(t, other) > 0 || f.mounted(t, f.target) != 1 {
		t.Error("the wrong one is mounted")
	}
}

// Of two at once for different pods, one waits for the other.
func TestSingleWritersAtOnce(t *testing.T) {
	f := newFixture(t)
	f.mounter.Block = make(chan struct{})
	first := make(chan error, 1)
	go func() { first <- f.tryPublish(mode(f.target, single)) }()
	eventually(t, "the first call does not mount", func() bool { return len(f.mounter.Calls()) > 0 })
	other := f.newTarget(t, "other", "pvc-1")
	if err := f.tryPublish(mode(other, single)); status.Code(err) != codes.Aborted {
		t.Errorf("the second: %v", err)
	}
	close(f.mounter.Block)
	if err := <-first; err != nil {
		t.Error(err)
	}
	if err := f.tryPublish(mode(other, single)); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("the second, later: %v", err)
	}
}
