package csiserver

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"k8s.io/klog/v2"
)

func TestSocketPath(t *testing.T) {
	for in, want := range map[string]string{"unix:///csi/csi.sock": "/csi/csi.sock", "unix:/csi/csi.sock": "/csi/csi.sock", "/csi//csi.sock": "/csi/csi.sock"} {
		if got, err := SocketPath(in); err != nil || got != want {
			t.Errorf("SocketPath(%q) = %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "/", "unix:", "unix://", "csi.sock", "unix:csi.sock", "tcp://127.0.0.1:1", "/csi/", "/" + strings.Repeat("a", 107)} {
		if got, err := SocketPath(in); err == nil {
			t.Errorf("SocketPath(%q) = %q, want an error", in, got)
		}
	}
}

func TestListenReplacesAStaleSocketOnly(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "csi.sock")
	stale, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false) // as a killed process leaves it
	if err := stale.Close(); err != nil {
		t.Fatal(err)
	}
	listener, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(socket); err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(socket, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(socket); err == nil {
		t.Error("a file was replaced")
	}
	if content, _ := os.ReadFile(socket); string(content) != "x" {
		t.Error("a file was touched")
	}
}

type service struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedNodeServer
	fail error
}

func (s *service) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, s.fail
}

func (s *service) NodePublishVolume(context.Context, *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	return nil, status.Error(codes.Internal, "it went wrong")
}

func (s *service) NodeUnpublishVolume(context.Context, *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	panic("a bug")
}

func serve(t *testing.T, s *service, call ...func(string, codes.Code, time.Duration)) (socket string, stop func() error) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "csi.sock")
	listener, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	services := Services{Identity: s, Node: s}
	if len(call) > 0 {
		services.ObserveCall = call[0]
	}
	go func() { done <- Serve(ctx, listener, services) }()
	return socket, func() error { cancel(); return <-done }
}

func TestServeStopsAndRemovesItsSocket(t *testing.T) {
	s := &service{}
	socket, stop := serve(t, s)
	if err := Probe(context.Background(), socket); err != nil {
		t.Fatal(err)
	}
	s.fail = status.Error(codes.FailedPrecondition, "not ready")
	if err := Probe(context.Background(), socket); err == nil {
		t.Error("a failing probe passes")
	}
	if err := Alive(context.Background(), socket); err != nil {
		t.Errorf("an answering server is not alive: %v", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("socket left: %v", err)
	}
	if Probe(context.Background(), socket) == nil || Alive(context.Background(), socket) == nil {
		t.Error("a stopped server passes")
	}
}

// Each call is counted, however it ended.
func TestCallsAreObserved(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]codes.Code{}
	socket, stop := serve(t, &service{}, func(method string, code codes.Code, d time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		seen[method] = code
		if d <= 0 {
			t.Errorf("%s took %s", method, d)
		}
	})
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	client := csi.NewNodeClient(conn)
	_, _ = csi.NewIdentityClient(conn).Probe(context.Background(), &csi.ProbeRequest{})
	_, _ = client.NodePublishVolume(context.Background(), &csi.NodePublishVolumeRequest{})
	_, _ = client.NodeUnpublishVolume(context.Background(), &csi.NodeUnpublishVolumeRequest{})
	if err := stop(); err != nil {
		t.Error(err)
	}
	want := map[string]codes.Code{
		"/csi.v1.Identity/Probe": codes.OK, "/csi.v1.Node/NodePublishVolume": codes.Internal, "/csi.v1.Node/NodeUnpublishVolume": codes.Unavailable,
	}
	if !maps.Equal(seen, want) {
		t.Errorf("seen %v, want %v", seen, want)
	}
}

// A connection that says nothing can't hold the stop up for longer than a call can.
func TestASilentConnectionHoldsUpNoStop(t *testing.T) {
	socket, stop := serve(t, &service{})
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	time.Sleep(50 * time.Millisecond) // until it was accepted
	started := time.Now()
	if err := stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(started); took > 2*stopGrace {
		t.Errorf("the stop took %v", took)
	}
}

// No secret reaches the log, whatever the level, and a panic ends one call only.
func TestCallsAreLoggedWithoutSecrets(t *testing.T) {
	var log bytes.Buffer
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	klog.InitFlags(flags)
	for name, value := range map[string]string{"v": "10", "logtostderr": "false", "stderrthreshold": "FATAL"} {
		if err := flags.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	klog.SetOutput(&log)
	socket, stop := serve(t, &service{})
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	client := csi.NewNodeClient(conn)
	_, err = client.NodePublishVolume(context.Background(), &csi.NodePublishVolumeRequest{
		VolumeId: "volume-1", TargetPath: "/target-1", Secrets: map[string]string{"mountOptions": "hush"},
		VolumeContext: map[string]string{"server": "hush"},
	})
	if status.Code(err) != codes.Internal {
		t.Errorf("got %v", err)
	}
	if _, err := client.NodeUnpublishVolume(context.Background(), &csi.NodeUnpublishVolumeRequest{}); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "a bug") {
		t.Errorf("got %v", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	klog.Flush()
	for _, want := range []string{"volume-1", "/target-1", "NodePublishVolume", "it went wrong", "Internal"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, &log)
		}
	}
	if strings.Contains(log.String(), "hush") {
		t.Errorf("a secret is in the log:\n%s", &log)
	}
}

// A predecessor that ends late takes its successor's socket away.
func TestTheSuccessorKeepsItsSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "csi.sock")
	services := Services{Identity: csi.UnimplementedIdentityServer{}, Node: csi.UnimplementedNodeServer{}}
	old, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, old, services) }()
	successor, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = successor.Close() }()
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the successor's socket is gone: %v", err)
	}
}
