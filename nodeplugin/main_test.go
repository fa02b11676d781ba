package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sharevol.dev/sharevol/internal/csiserver"
)

func TestBadCommandLineNamesEveryFault(t *testing.T) {
	err := run(context.Background(), []string{"--unknown", "--endpoint=tcp://x", "--driver-name=a/b", "--http-address=x", "word"}, &bytes.Buffer{})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"-unknown", `--endpoint="tcp://x"`, `--driver-name="a/b"`, `--http-address="x"`, `--node-id=""`, `"word"`} {
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

// The node plugin runs on every node: what it links is what all of them pay for.
// A module that is new here needs a reason.
func TestLinksOnlyWhatItNeeds(t *testing.T) {
	allowed := []string{
		"github.com/container-storage-interface/spec/", // the CSI services
		"github.com/go-logr/logr",                      // klog's
		"github.com/moby/sys/mountinfo",                // mount-utils'
		"golang.org/x/",
		"google.golang.org/genproto/googleapis/rpc/", // grpc's
		"google.golang.org/grpc",
		"google.golang.org/protobuf",
		"k8s.io/apimachinery/pkg/util/errors", // what validation/field takes
		"k8s.io/apimachinery/pkg/util/sets",
		"k8s.io/apimachinery/pkg/util/validation/field",
		"k8s.io/klog/v2",
		"k8s.io/mount-utils",
		"k8s.io/utils/", // mount-utils'
		"sharevol.dev/sharevol/internal/cli",
		"sharevol.dev/sharevol/internal/csiserver",
		"sharevol.dev/sharevol/internal/health",
		"sharevol.dev/sharevol/internal/nfsmount",
		"sharevol.dev/sharevol/internal/node",
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
