package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"sharevol.dev/sharevol/internal/csiserver"
)

func TestBadCommandLineNamesEveryFault(t *testing.T) {
	err := run(context.Background(), []string{"--unknown", "--endpoint=tcp://x", "--driver-name=a/b", "--http-address=x", "--kubelet-dir=a/../b", "word"}, &bytes.Buffer{})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"-unknown", `--endpoint="tcp://x"`, `--driver-name="a/b"`, `--http-address="x"`, `--kubelet-dir="a/../b"`, `--node-id=""`, `"word"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("message lacks %q:\n%v", want, err)
		}
	}
}

func TestVersionAndHelp(t *testing.T) {
	for arg, want := range map[string]string{"--version": "sharevol-node " + version, "--help": "-node-id name"} {
		var out bytes.Buffer
		if err := run(context.Background(), []string{arg}, &out); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%s: %v\n%s", arg, err, &out)
		}
	}
}

func TestServesUntilItIsStopped(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "csi.sock")
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, []string{"--node-id=node1", "--endpoint=unix://" + socket, "--http-address=127.0.0.1:0"}, &bytes.Buffer{})
	}()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		// The answer depends on what this machine has for mounting; that there is one does not.
		if err := csiserver.Probe(ctx, socket); err == nil || strings.Contains(err.Error(), "FailedPrecondition") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not answer")
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("socket left: %v", err)
	}
}

// What the flags say reaches what they are for.
func TestParts(t *testing.T) {
	dir, err := os.MkdirTemp("", "node")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket, left := filepath.Join(dir, "csi.sock"), filepath.Join(dir, "trial-OLD-1")
	if err := os.Mkdir(left, 0o700); err != nil { // by a run that was killed
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, []string{"--node-id=node1", "--endpoint=" + socket, "--http-address=" + address, "--kubelet-dir=" + dir}, &bytes.Buffer{})
	}()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	calling, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	client := csi.NewNodeClient(conn)
	for target, want := range map[string]codes.Code{dir + "/pods/p/volumes/kubernetes.io~csi/v/gone": codes.OK, "/var/lib/kubelet/gone/x": codes.InvalidArgument} {
		request := &csi.NodeUnpublishVolumeRequest{VolumeId: "v", TargetPath: target}
		if _, err := client.NodeUnpublishVolume(calling, request, grpc.WaitForReady(true)); status.Code(err) != want {
			t.Errorf("%s: %v", target, err)
		}
	}
	for path, want := range map[string]string{"healthz": "ok", "metrics": `sharevol_node_call_duration_seconds_count{code="InvalidArgument",method="NodeUnpublishVolume"} 1`} {
		answer, err := http.Get("http://" + address + "/" + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		if err := errors.Join(err, answer.Body.Close()); err != nil || !strings.Contains(string(body), want) {
			t.Errorf("%s: %v: %s", path, err, body)
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what an earlier run left is still there: %v", err)
	}
}

// The node plugin runs on every node: what it links is what all of them pay for.
// A module that is new here needs a reason.
func TestLinksOnlyWhatItNeeds(t *testing.T) {
	allowed := []string{
		"github.com/container-storage-interface/spec/", // the CSI services
		"github.com/beorn7/perks/",                     // client_golang's, this and the next two
		"github.com/cespare/xxhash/v2",
		"github.com/munnerz/goautoneg",
		"github.com/go-logr/logr", // klog's
		"github.com/moby/sys/mountinfo",
		"github.com/prometheus/", // client_golang: /metrics, for 1 MB of program
		"golang.org/x/",
		"google.golang.org/genproto/googleapis/rpc/", // grpc's
		"google.golang.org/grpc",
		"google.golang.org/protobuf",
		"k8s.io/apimachinery/pkg/util/errors", // what validation/field takes
		"k8s.io/apimachinery/pkg/util/sets",
		"k8s.io/apimachinery/pkg/util/validation/field",
		"k8s.io/klog/v2",
		"k8s.io/mount-utils",
		"k8s.io/utils/",                                  // mount-utils'
		"k8s.io/kubelet/pkg/apis/pluginregistration/v1/", // kubelet's registration API: its messages, no more
		"sharevol.dev/sharevol/internal/cli",
		"sharevol.dev/sharevol/internal/csiserver",
		"sharevol.dev/sharevol/internal/fs",
		"sharevol.dev/sharevol/internal/health",
		"sharevol.dev/sharevol/internal/mount",
		"sharevol.dev/sharevol/internal/node",
		"sharevol.dev/sharevol/internal/process",
		"sharevol.dev/sharevol/internal/processors",
		"sharevol.dev/sharevol/internal/registration",
		"sharevol.dev/sharevol/internal/volume",
		"sharevol.dev/sharevol/nodeplugin",
	}
	output, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range strings.Fields(string(output)) {
		first, _, _ := strings.Cut(path, "/")
		if !strings.Contains(first, ".") { // the standard library
			continue
		}
		ok := false
		for _, prefix := range allowed {
			ok = ok || strings.HasPrefix(path+"/", prefix)
		}
		if !ok {
			t.Errorf("sharevol-node links %s", path)
		}
	}
}
