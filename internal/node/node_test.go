package node_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"sharevol.dev/sharevol/internal/csiserver"
	"sharevol.dev/sharevol/internal/nfsmount/fakemount"
	"sharevol.dev/sharevol/internal/node"
)

var ctx = context.Background()

const source = "nfs:/srv/pvc-1"

// fixture is the real gRPC server on a socket over a fake mounter.
type fixture struct {
	node     csi.NodeClient
	identity csi.IdentityClient
	mounter  *fakemount.Mounter
	target   string
}

func newFixture(t *testing.T) fixture {
	t.Helper()
	dir := t.TempDir()
	f := fixture{
		mounter: &fakemount.Mounter{Exports: map[string]string{source: t.TempDir()}},
		target:  filepath.Join(dir, "pods", "uid", "mount"),
	}
	if err := os.MkdirAll(filepath.Dir(f.target), 0o700); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "csi.sock")
	listener, err := csiserver.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	serving, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		done <- csiserver.Serve(serving, listener, node.NewIdentity("csi.sharevol.dev", "v1", f.mounter), node.New("node1", f.mounter))
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
	})
	f.node, f.identity = csi.NewNodeClient(conn), csi.NewIdentityClient(conn)
	return f
}

func (f fixture) request() *csi.NodePublishVolumeRequest {
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

func (f fixture) publish(t *testing.T) {
	t.Helper()
	if _, err := f.node.NodePublishVolume(ctx, f.request()); err != nil {
		t.Fatal(err)
	}
}

func (f fixture) unpublish() error {
	_, err := f.node.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: "x", TargetPath: f.target})
	return err
}

func TestPublishAndUnpublishTwice(t *testing.T) {
	f := newFixture(t)
	f.publish(t)
	f.publish(t)
	calls := f.mounter.Calls()
	if len(calls) != 1 || calls[0].Source != source || !slices.Equal(calls[0].Options, []string{"nfsvers=4.2", "hard"}) {
		t.Errorf("mounted %+v", calls)
	}
	for range 2 {
		if err := f.unpublish(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(f.target); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("target left: %v", err)
		}
	}
}

func TestReadOnlyComesFromTheRequestAlone(t *testing.T) {
	f := newFixture(t)
	request := f.request()
	request.Readonly = true
	request.VolumeCapability.AccessMode.Mode = csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
	if _, err := f.node.NodePublishVolume(ctx, request); err != nil {
		t.Fatal(err)
	}
	if got := f.mounter.Calls()[0].Options; !slices.Equal(got, []string{"nfsvers=4.2", "hard", "ro"}) {
		t.Errorf("options %v", got)
	}
}

func TestStaticVolumeOfTheShareRoot(t *testing.T) {
	f := newFixture(t)
	f.mounter.Exports["[2001:db8::7]:/srv"] = t.TempDir()
	request := f.request()
	request.VolumeContext = map[string]string{"Server": "2001:db8::7", "SHARE": "/srv/"}
	if _, err := f.node.NodePublishVolume(ctx, request); err != nil {
		t.Fatal(err)
	}
}

func TestPublishNamesEveryFault(t *testing.T) {
	f := newFixture(t)
	_, err := f.node.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
		TargetPath:    "relative/../path",
		VolumeContext: map[string]string{"server": "-o", "subDir": "../other"},
		VolumeCapability: &csi.VolumeCapability{
			AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{MountFlags: []string{"suid,bind"}}},
		},
	})
	if status.Code(err) != codes.InvalidArgument {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{"volume_id: required", "target_path", "volume_context[server]", "volume_context[share]", "volume_context[subDir]", `"suid" is refused`, `"bind" is refused`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
	request := f.request()
	request.VolumeCapability.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
	if _, err := f.node.NodePublishVolume(ctx, request); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "block") {
		t.Errorf("block: %v", err)
	}
	if calls := f.mounter.Calls(); len(calls) > 0 {
		t.Errorf("mounted %v", calls)
	}
}

// After a final code kubelet forgets the mount and never unpublishes it.
func TestNoFinalCodeWhileSomethingIsMounted(t *testing.T) {
	f := newFixture(t)
	f.publish(t)
	request := f.request()
	request.VolumeContext["subDir"] = "../other"
	if _, err := f.node.NodePublishVolume(ctx, request); status.Code(err) != codes.Unavailable {
		t.Errorf("faults on a mounted target: %v", err)
	}
	request = f.request()
	request.VolumeContext["subDir"] = "pvc-2"
	if _, err := f.node.NodePublishVolume(ctx, request); status.Code(err) != codes.Unavailable {
		t.Errorf("another volume on the target: %v", err)
	}
	if layers, _ := f.mounter.Layers(f.target); len(layers) != 1 || layers[0].Source != source {
		t.Errorf("the mount was touched: %v", layers)
	}
}

func TestMissingDirectoryIsNotFound(t *testing.T) {
	f := newFixture(t)
	request := f.request()
	request.VolumeContext["subDir"] = "pvc-2"
	if _, err := f.node.NodePublishVolume(ctx, request); status.Code(err) != codes.NotFound {
		t.Errorf("got %v", err)
	}
}

// azurefile-csi-driver #3211: something wrote to the node's disk where a volume
// belongs. It is neither hidden nor deleted.
func TestFilesOnTheNodesDiskAreLeftAlone(t *testing.T) {
	f := newFixture(t)
	file := filepath.Join(f.target, "precious")
	if err := os.Mkdir(f.target, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, publishErr := f.node.NodePublishVolume(ctx, f.request())
	for call, err := range map[string]error{"publish": publishErr, "unpublish": f.unpublish()} {
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "precious") {
			t.Errorf("%s: %v", call, err)
		}
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}

func TestATargetThatIsNoDirectoryIsLeftAlone(t *testing.T) {
	for name, make := range map[string]func(string) error{
		"link": func(path string) error { return os.Symlink(t.TempDir(), path) },
		"file": func(path string) error { return os.WriteFile(path, nil, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			if err := make(f.target); err != nil {
				t.Fatal(err)
			}
			_, publishErr := f.node.NodePublishVolume(ctx, f.request())
			for call, err := range map[string]error{"publish": publishErr, "unpublish": f.unpublish()} {
				if status.Code(err) != codes.FailedPrecondition {
					t.Errorf("%s: %v", call, err)
				}
			}
			if _, err := os.Lstat(f.target); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestOneCallAtATimeForATarget(t *testing.T) {
	f := newFixture(t)
	f.mounter.Block = make(chan struct{})
	first := make(chan error, 1)
	go func() {
		_, err := f.node.NodePublishVolume(ctx, f.request())
		first <- err
	}()
	for deadline := time.Now().Add(10 * time.Second); len(f.mounter.Calls()) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the first call does not mount")
		}
	}
	if _, err := f.node.NodePublishVolume(ctx, f.request()); status.Code(err) != codes.Aborted {
		t.Errorf("a second publish: %v", err)
	}
	if err := f.unpublish(); status.Code(err) != codes.Aborted {
		t.Errorf("unpublish: %v", err)
	}
	close(f.mounter.Block)
	if err := <-first; err != nil {
		t.Error(err)
	}
	if err := f.unpublish(); err != nil {
		t.Error(err)
	}
}

func TestUnpublishValidates(t *testing.T) {
	f := newFixture(t)
	_, err := f.node.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{TargetPath: "/"})
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "volume_id") || !strings.Contains(err.Error(), "target_path") {
		t.Errorf("got %v", err)
	}
}

func TestIdentity(t *testing.T) {
	f := newFixture(t)
	info, err := f.identity.GetPluginInfo(ctx, &csi.GetPluginInfoRequest{})
	if err != nil || info.Name != "csi.sharevol.dev" || info.VendorVersion != "v1" {
		t.Errorf("%v, %v", info, err)
	}
	if probe, err := f.identity.Probe(ctx, &csi.ProbeRequest{}); err != nil || !probe.Ready.GetValue() {
		t.Errorf("%v, %v", probe, err)
	}
	if info, err := f.node.NodeGetInfo(ctx, &csi.NodeGetInfoRequest{}); err != nil || info.NodeId != "node1" {
		t.Errorf("%v, %v", info, err)
	}
}

func TestProbeFailsWhereMountingCannotWork(t *testing.T) {
	f := newFixture(t)
	f.mounter.CheckErr = errors.New("mount.nfs: not found")
	if _, err := f.identity.Probe(ctx, &csi.ProbeRequest{}); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "mount.nfs") {
		t.Errorf("got %v", err)
	}
}
