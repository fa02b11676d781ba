package node_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"sharevol.dev/sharevol/internal/csiserver"
	"sharevol.dev/sharevol/internal/fs"
	"sharevol.dev/sharevol/internal/mount/fakemount"
	"sharevol.dev/sharevol/internal/node"
	"sharevol.dev/sharevol/internal/node/fakestatfs"
	"sharevol.dev/sharevol/internal/volume"
)

var ctx = context.Background()

const source = "nfs:/srv/pvc-1"

// statfsTimeout is short, so that tests of dead servers are.
const statfsTimeout = 300 * time.Millisecond

// fixture is the real gRPC server on a socket over a fake mounter and a fake statfs.
type fixture struct {
	node     csi.NodeClient
	identity csi.IdentityClient
	server   *node.Server
	mounter  *fakemount.Mounter
	statfs   *fakestatfs.Statfs
	kubelet  string // kubelet's folder
	trials   string
	target   string
	patience time.Duration // how long a statfs may take
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{
		mounter: &fakemount.Mounter{Exports: map[string]string{source: t.TempDir()}},
		statfs:  &fakestatfs.Statfs{}, kubelet: filepath.Join(dir, "kubelet"), trials: filepath.Join(dir, "trials"),
		patience: statfsTimeout,
	}
	if err := os.Mkdir(f.trials, 0o700); err != nil {
		t.Fatal(err)
	}
	f.target = f.newTarget(t, "uid", "pvc-1")
	f.restart(t)
	return f
}

// newTarget makes the parent of a pod's target, as kubelet does, and returns the target.
func (f *fixture) newTarget(t *testing.T, pod, volume string) string {
	t.Helper()
	parent := filepath.Join(f.kubelet, "pods", pod, "volumes", "kubernetes.io~csi", volume)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(parent, "mount")
}

// restart serves from now on with a new Server, which knows nothing of what the one
// before did; the mounts stay.
func (f *fixture) restart(t *testing.T) {
	t.Helper()
	server := node.New(f.mounter, node.Options{
		NodeID: "node1", KubeletDir: f.kubelet, TrialDir: f.trials, Statfs: f.statfs.Ask, StatfsTimeout: f.patience,
	})
	f.server = server
	dir, err := os.MkdirTemp("", "csi") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "csi.sock")
	listener, err := csiserver.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	serving, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	mounter := f.mounter
	go func() {
		services := csiserver.Services{Identity: node.NewIdentity("csi.sharevol.dev", "v1", mounter), Node: server}
		done <- csiserver.Serve(serving, listener, services)
	}()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := os.Remove(dir); err != nil { // the socket is gone
			t.Error(err)
		}
	})
	f.node, f.identity = csi.NewNodeClient(conn), csi.NewIdentityClient(conn)
}

func (f *fixture) request() *csi.NodePublishVolumeRequest {
	return &csi.NodePublishVolumeRequest{
		VolumeId:      "nfs#srv#pvc-1#pvc-1#",
		TargetPath:    f.target,
		VolumeContext: map[string]string{"server": "nfs", "share": "/srv", "subDir": "pvc-1", "onDelete": "delete"},
		VolumeCapability: &csi.VolumeCapability{
			AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{MountFlags: []string{"nfsvers=4.2", "hard"}}},
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER},
		},
	}
}

func (f *fixture) publish(t *testing.T) {
	t.Helper()
	if err := f.tryPublish(func(*csi.NodePublishVolumeRequest) {}); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) tryPublish(change func(*csi.NodePublishVolumeRequest)) error {
	request := f.request()
	change(request)
	_, err := f.node.NodePublishVolume(ctx, request)
	return err
}

func unchanged(*csi.NodePublishVolumeRequest) {}

// to has a request publish on another target.
func to(target string) func(*csi.NodePublishVolumeRequest) {
	return func(r *csi.NodePublishVolumeRequest) { r.TargetPath = target }
}

func (f *fixture) unpublish() error { return f.unpublishFrom(f.target) }

func (f *fixture) unpublishFrom(target string) error {
	_, err := f.node.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: "x", TargetPath: target})
	return err
}

// optionsOf returns the options of the first mount but those that are added to every one.
func (f *fixture) optionsOf(t *testing.T) []string {
	t.Helper()
	options := f.mounter.Calls()[0].Options
	always := fs.Types.Options(volume.Share{}).Always
	asked := len(options) - len(always)
	if asked < 0 || !slices.Equal(options[asked:], always) {
		t.Fatalf("options %q, want %q at their end", options, always)
	}
	return options[:asked]
}

func (f *fixture) mounted(t *testing.T, target string) int {
	t.Helper()
	layers, err := f.mounter.Layers(target)
	if err != nil {
		t.Fatal(err)
	}
	return len(layers)
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}
