package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes/fake"

	"sharevol.dev/sharevol/internal/cluster"
	"sharevol.dev/sharevol/internal/fence"
)

func TestBadCommandLineNamesEveryFault(t *testing.T) {
	err := run(context.Background(), []string{
		"--unknown", "--kube-api-qps=fast", "--worker-threads=0", "--driver-name=-", "--http-address=nowhere",
		"--kube-api-burst=1", "--kubeconfig=/nonexistent", "word", "--default-on-delete=shred",
		"--premounted=nfs", "--premounted=nfs:/srv=/", "--premounted=-o:/srv=/a", "--premounted=nfs:/srv=/a", "--premounted=nfs:/srv=/b",
		"--lease-name=A", "--lease-namespace=a.b", "--adopt-provisioner=a", "--adopt-provisioner=a/b=nfs:/srv/../x",
		"--adopt-provisioner=a/b=nfs:/srv", "--adopt-provisioner=a-b=nfs:/srv", "--adopt-namespace=a/b",
	}, &bytes.Buffer{})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"-unknown", `"fast"`, "kube-api-qps", "worker-threads", `--driver-name="-"`, `--http-address="nowhere"`,
		"--kube-api-burst=1: must be at least", `--kubeconfig="/nonexistent"`, `"word"`, "--help",
		"must be one of delete, retain, archive", "SERVER:/SHARE=/PATH", "below /", "-o", "given twice", `--lease-name="A"`, `--lease-namespace="a.b"`,
		"NAME=SERVER:/SHARE", `".." path component`, "a-b is given twice", `--adopt-namespace="a/b"`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("message lacks %q:\n%v", want, err)
		}
	}
}

// Two names of which one is ours, or whose locks can't be told from ours.
func TestAdoptedNamesAreOthers(t *testing.T) {
	config := Config{DriverName: "x.example.com", LeaseNamespace: "a", LeaderElect: true, HTTPAddress: "127.0.0.1:1"}
	for _, value := range []string{"x.example.com=nfs:/srv", "y/z=nfs:/srv"} {
		if err := config.Adopted.Set(value); err != nil {
			t.Fatal(err)
		}
	}
	err := config.Validate()
	if err == nil || !strings.Contains(err.Error(), "--adopt-provisioner=x.example.com=...: must not be the --driver-name") || !strings.Contains(err.Error(), "the lock of x.example.com") {
		t.Errorf("got %v", err)
	}
	config.Adopted, config.LeaseName = config.Adopted[1:], "y-z"
	if err := config.Validate(); err == nil || !strings.Contains(err.Error(), "the lock of y/z") {
		t.Errorf("got %v", err)
	}
	config.Adopted, config.LeaseName, config.AdoptNamespace = nil, "", "nfs"
	if err := config.Validate(); err == nil || !strings.Contains(err.Error(), "means nothing without --adopt-provisioner") {
		t.Errorf("got %v", err)
	}
	config.AdoptNamespace = ""
	if err := config.Validate(); err != nil {
		t.Error(err)
	}
}

func TestOutsideAClusterItSaysWhatToGive(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if err := run(context.Background(), []string{"--lease-namespace=x", "--premounted=nfs:/=/srv"}, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "--kubeconfig") {
		t.Errorf("got %v", err)
	}
}

func TestReady(t *testing.T) {
	caches, err := cluster.New(fake.NewClientset(), cluster.Names{Driver: "csi.sharevol.dev"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p := &program{fence: &fence.Fence{}, cluster: caches}
	if err := p.ready(ctx); err == nil {
		t.Error("ready with empty caches")
	}
	caches.Start(ctx)
	for p.ready(ctx) != nil { // a standby's only condition
		if ctx.Err() != nil {
			t.Fatal(p.ready(context.Background()))
		}
		time.Sleep(10 * time.Millisecond)
	}
	p.fence = fence.Unfenced()
	if err := p.ready(ctx); err == nil || !strings.Contains(err.Error(), "waiting for the UID") {
		t.Errorf("a leader that does not serve yet: %v", err)
	}
	p.serving.Store(true)
	if err := p.ready(ctx); err != nil {
		t.Errorf("a leader that serves: %v", err)
	}
	p.fence.Revoke("given up")
	if err := p.ready(ctx); !errors.Is(err, fence.ErrLost) {
		t.Errorf("a leader whose lease is lost: %v", err)
	}
}

// A program that lost its lease waits for the work that has begun, and for none that
// has not.
func TestALostLease(t *testing.T) {
	lost := fmt.Errorf("%w: it ran out", fence.ErrLost)
	begun, release, stopped := make(chan struct{}), make(chan struct{}), false
	elect := func(lead func(context.Context) error) error {
		go func() { _ = lead(t.Context()) }()
		<-begun
		time.AfterFunc(100*time.Millisecond, func() { close(release) })
		return lost
	}
	err := untilStopped(elect, func(context.Context) error {
		close(begun)
		<-release
		stopped = true
		return nil
	})
	if !errors.Is(err, fence.ErrLost) || !stopped {
		t.Errorf("%v, waited for what had begun: %v", err, stopped)
	}
	began := time.Now()
	err = untilStopped(func(func(context.Context) error) error { return lost }, nil)
	if took := time.Since(began); !errors.Is(err, fence.ErrLost) || took > (closeTimeout+drainTimeout)/2 {
		t.Errorf("%v after %v", err, took)
	}
}

func TestVersionAndHelp(t *testing.T) {
	for arg, want := range map[string]string{"--version": "sharevol-provisioner " + version, "--help": "-kube-api-qps requests"} {
		var out bytes.Buffer
		if err := run(context.Background(), []string{arg}, &out); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%s: %v\n%s", arg, err, &out)
		}
	}
}
