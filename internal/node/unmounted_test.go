package node_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sharevol.dev/sharevol/internal/mount"
	"sharevol.dev/sharevol/internal/mount/fakemount"
	"sharevol.dev/sharevol/internal/node"
)

// slowLook is a Mounter whose Layers returns late what it has seen.
type slowLook struct {
	*fakemount.Mounter
	seen, goOn chan struct{}
}

func (m *slowLook) Layers(target string) ([]mount.Layer, error) {
	layers, err := m.Mounter.Layers(target)
	if m.seen != nil {
		close(m.seen)
		<-m.goOn
		m.seen = nil
	}
	return layers, err
}

// Statistics while the volume is being unpublished: statfs sees the node's own disk.
func TestStatsWhileUnpublished(t *testing.T) {
	dir, _ := filepath.EvalSymlinks(t.TempDir())
	parent := filepath.Join(dir, "pods/u/volumes/kubernetes.io~csi/v")
	if err := os.MkdirAll(parent, 0o700); err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(parent, "mount")
	if err := os.Mkdir(target, 0o700); err != nil {
		t.Fatal(err)
	}
	fake := &fakemount.Mounter{}
	fake.Put(target, mount.Layer{Source: source, FSType: "nfs4", Device: "0:50"})
	m := &slowLook{Mounter: fake, seen: make(chan struct{}), goOn: make(chan struct{})}
	s := node.New(m, node.Options{NodeID: "n", KubeletDir: dir}) // the real statfs
	got := make(chan error)
	go func() {
		_, err := s.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: "v", VolumePath: target})
		got <- err
	}()
	<-m.seen
	if err := fake.Unmount(ctx, target); err != nil { // as unpublish does, before it removes the target
		t.Fatal(err)
	}
	close(m.goOn)
	if err := <-got; status.Code(err) != codes.NotFound {
		t.Errorf("the figures of the node's disk are the volume's: %v", err)
	}
}
