package main

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

type identity struct {
	csi.UnimplementedIdentityServer
}

func (identity) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: "csi.example"}, nil
}

// serveDriver serves a CSI driver and returns its socket.
func serveDriver(t *testing.T) string {
	socket := filepath.Join(t.TempDir(), "csi.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	csi.RegisterIdentityServer(server, identity{})
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return socket
}

func TestRegistration(t *testing.T) {
	tests := map[string]struct {
		status  *registration.RegistrationStatus
		failure string // part of the error that run ends with; none when it goes on until it is told to stop
	}{
		"accepted": {status: &registration.RegistrationStatus{PluginRegistered: true}},
		"refused":  {status: &registration.RegistrationStatus{Error: "no such node"}, failure: "no such node"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			folder := t.TempDir()
			args := []string{
				"--csi-address=" + serveDriver(t), "--kubelet-registration-path=/node/csi.sock",
				"--plugin-registration-path=" + folder, "--v=2",
			}
			running, stop := context.WithCancel(ctx)
			ended := make(chan error, 1)
			go func() { ended <- run(running, args) }()

			socket := filepath.Join(folder, "csi.example-reg.sock")
			conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			kubelet := registration.NewRegistrationClient(conn)
			info, err := kubelet.GetInfo(ctx, &registration.InfoRequest{}, grpc.WaitForReady(true))
			if err != nil || info.Name != "csi.example" || info.Endpoint != "/node/csi.sock" || info.Type != registration.CSIPlugin {
				t.Fatalf("GetInfo: %v, %v", info, err)
			}
			// a refused one may be gone before it has answered
			if _, err := kubelet.NotifyRegistrationStatus(ctx, test.status); err != nil && test.failure == "" {
				t.Fatal(err)
			}
			if test.failure == "" {
				stop()
			}
			defer stop()
			switch err := <-ended; {
			case test.failure == "" && err != nil:
				t.Error(err)
			case test.failure != "" && (err == nil || !strings.Contains(err.Error(), test.failure)):
				t.Errorf("run: %v, want one that says %q", err, test.failure)
			}
			if left, _ := filepath.Glob(folder + "/*"); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}
