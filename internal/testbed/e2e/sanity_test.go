package e2e

import (
	"errors"
	"io/fs"
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
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"

	"sharevol.dev/sharevol/internal/testbed/scene"
)

// testSanity runs csi-sanity against the installed node plugin, over its socket
// and on the real NFS server. The suite makes its volumes through a CSI controller,
// which sharevol does not have: it gets one of this test's, which passes the
// other calls on to the plugin.
func (w world) testSanity(t *testing.T) {
	dir := w.NFS.Dir(filepath.Join(scene.Share, "sanity"))
	check(t, os.Mkdir(dir, 0o777))
	plugin := filepath.Join(scene.KubeletDir, "plugins/csi.sharevol.dev/csi.sock")
	config := sanity.NewTestConfig()
	config.Address = "unix://" + serveSanity(t, dir, plugin)
	// The folder of a real pod: of one that it does not know, kubelet removes every
	// empty directory.
	w.pod(t, "sanity", "", "", func(pod *corev1.Pod) {
		pod.Spec.Volumes[0].VolumeSource = corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}
	})
	volumes := filepath.Join(scene.KubeletDir, "pods", string(w.running(t, "sanity").UID), "volumes/kubernetes.io~csi")
	config.TargetPath = filepath.Join(volumes, "sanity/target")
	config.StagingPath = filepath.Join(volumes, "sanity/staging")
	makeDir := func(path string) (string, error) { return path, os.MkdirAll(path, 0o750) }
	config.CreateTargetDir, config.CreateStagingDir, config.CheckPath = makeDir, makeDir, kindOf

	sanity.GinkgoTest(&config)
	gomega.RegisterFailHandler(ginkgo.Fail)
	suite, reporter := ginkgo.GinkgoConfiguration()
	// What a node plugin has. The suite skips by itself the cases of staging and expansion,
	// because there is nothing to stage and a directory has no size, and of the storage's health
	// as a whole, because a node knows servers only by the volumes that it has mounted.
	suite.FocusStrings = []string{"Identity Service", "Node Service"}
	suite.FailOnEmpty = true
	reporter.NoColor = true
	ginkgo.RunSpecs(t, "csi-sanity", suite, reporter)

	mounts, err := os.ReadFile("/proc/mounts")
	check(t, err)
	if strings.Contains(string(mounts), volumes) {
		t.Fatalf("left mounted: %s", mounts)
	}
	check(t, os.RemoveAll(volumes))
	check(t, os.Remove(dir)) // empty: the suite removed what it made
	check(t, w.DeletePod(t.Context(), "sanity"))
}

func kindOf(path string) (sanity.PathKind, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return sanity.PathIsNotFound, nil
	case err != nil:
		return "", err
	case info.IsDir():
		return sanity.PathIsDir, nil
	}
	return sanity.PathIsFile, nil
}

// serveSanity serves the test's controller, and the plugin behind it, until the
// test ends. It returns the socket.
func serveSanity(t *testing.T, dir, plugin string) string {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+plugin, grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(t, err)
	socket := filepath.Join(t.TempDir(), "csi.sock")
	listener, err := net.Listen("unix", socket)
	check(t, err)
	server := grpc.NewServer()
	csi.RegisterControllerServer(server, &controller{dir: dir})
	csi.RegisterIdentityServer(server, &identity{plugin: csi.NewIdentityClient(conn)})
	csi.RegisterNodeServer(server, &node{plugin: csi.NewNodeClient(conn)})
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		check(t, errors.Join(<-done, conn.Close()))
	})
	return socket
}
