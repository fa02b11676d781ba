package e2e

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sharevol.dev/sharevol/internal/testbed/scene"
)

// testSanity runs csi-sanity against the installed node plugin, over its own
// socket and on the real NFS server. sharevol has no CSI controller: one of this
// test's makes the directories that the suite mounts.
func (w world) testSanity(t *testing.T) {
	dir := w.NFS.Dir(filepath.Join(scene.Share, "sanity"))
	check(t, os.Mkdir(dir, 0o777))
	socket := filepath.Join(t.TempDir(), "controller.sock")
	listener, err := net.Listen("unix", socket)
	check(t, err)
	server := grpc.NewServer()
	csi.RegisterControllerServer(server, &controller{dir: dir})
	csi.RegisterIdentityServer(server, &controller{})
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	defer func() {
		server.Stop()
		check(t, <-done)
		check(t, os.Remove(dir)) // empty: the suite removed what it made
	}()
	config := sanity.NewTestConfig()
	config.Address = "unix://" + filepath.Join(scene.KubeletDir, "plugins/csi.sharevol.dev/csi.sock")
	config.ControllerAddress = "unix://" + socket
	// Where the plugin's mounts reach the node, in a pod's folder that kubelet does
	// not clean up because it has volumes.
	pod := filepath.Join(scene.KubeletDir, "pods/sanity")
	config.TargetPath = filepath.Join(pod, "volumes/kubernetes.io~csi/sanity/target")
	config.StagingPath = filepath.Join(pod, "volumes/kubernetes.io~csi/sanity/staging")
	makeDir := func(path string) (string, error) { return path, os.MkdirAll(path, 0o750) }
	config.CreateTargetDir, config.CreateStagingDir = makeDir, makeDir
	sanity.GinkgoTest(&config)
	gomega.RegisterFailHandler(ginkgo.Fail)
	suite, reporter := ginkgo.GinkgoConfiguration()
	suite.FocusStrings = []string{"Identity Service", "Node Service"}
	reporter.NoColor = true
	ginkgo.RunSpecs(t, "csi-sanity", suite, reporter)
	if mounts, err := os.ReadFile("/proc/mounts"); err != nil || strings.Contains(string(mounts), pod) {
		t.Errorf("left mounted: %s, %v", mounts, err)
	} else {
		check(t, os.RemoveAll(pod))
	}
}

// controller is a CSI controller that makes and removes directories in dir.
type controller struct {
	csi.UnimplementedControllerServer
	csi.UnimplementedIdentityServer
	dir string
}

func (c *controller) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{Capabilities: []*csi.PluginCapability{{
		Type: &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{Type: csi.PluginCapability_Service_CONTROLLER_SERVICE}},
	}}}, nil
}

func (c *controller) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	return &csi.ControllerGetCapabilitiesResponse{Capabilities: []*csi.ControllerServiceCapability{{
		Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME}},
	}}}, nil
}

func (c *controller) CreateVolume(_ context.Context, request *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	if request.GetName() == "" || len(request.GetVolumeCapabilities()) == 0 {
		return nil, status.Error(codes.InvalidArgument, "name and capabilities are required")
	}
	if err := os.MkdirAll(filepath.Join(c.dir, request.GetName()), 0o777); err != nil {
		return nil, err
	}
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{
		VolumeId:      request.GetName(),
		CapacityBytes: request.GetCapacityRange().GetRequiredBytes(),
		VolumeContext: map[string]string{"server": scene.ServerName, "share": scene.Share + "/sanity", "subDir": request.GetName()},
	}}, nil
}

func (c *controller) DeleteVolume(_ context.Context, request *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	if request.GetVolumeId() == "" {
		return nil, status.Error(codes.InvalidArgument, "volume id is required")
	}
	return &csi.DeleteVolumeResponse{}, os.RemoveAll(filepath.Join(c.dir, request.GetVolumeId()))
}
