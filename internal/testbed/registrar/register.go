package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// connectFor is how long the driver may take to come up, as in the original.
const connectFor = 30 * time.Second

// healthWithin bounds one health check.
const healthWithin = 5 * time.Second

// register serves the driver's registration until ctx ends, or until kubelet refuses the driver: then
// the process ends and counts on being started again.
func register(ctx context.Context, c config) error {
	name, err := driverName(ctx, c)
	if err != nil {
		return err
	}
	socket := filepath.Join(c.pluginRegistration, name+"-reg.sock")
	if err := removeIfThere(socket); err != nil {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("listen for kubelet: %w", err)
	}
	if c.httpEndpoint != "" {
		stop, err := serveHealth(c.httpEndpoint, socket)
		if err != nil {
			return err
		}
		defer stop()
	}
	refused := make(chan error, 1)
	server := grpc.NewServer()
	registration.RegisterRegistrationServer(server, &registrationServer{config: c, driver: name, refused: refused})
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }() // closing the listener removes the socket
	log.Printf("driver %s: waiting for kubelet at %s", name, socket)

	select {
	case <-ctx.Done():
	case err = <-refused:
	case err = <-served:
	}
	server.Stop()
	return errors.Join(err, removeIfThere(socket))
}

func driverName(ctx context.Context, c config) (string, error) {
	conn, err := grpc.NewClient("unix:"+c.csiAddress, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return "", fmt.Errorf("connect to the driver: %w", err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, connectFor)
	defer cancel()
	for {
		call, done := context.WithTimeout(ctx, c.timeout)
		answer, err := csi.NewIdentityClient(conn).GetPluginInfo(call, &csi.GetPluginInfoRequest{}, grpc.WaitForReady(true))
		done()
		if err == nil && answer.GetName() == "" {
			return "", errors.New("the driver has an empty name")
		}
		if err == nil {
			return answer.GetName(), nil
		}
		if ctx.Err() != nil {
			return "", fmt.Errorf("ask the driver at %s for its name: %w", c.csiAddress, err)
		}
	}
}

// registrationServer answers kubelet's plugin watcher.
type registrationServer struct {
	registration.UnsafeRegistrationServer
	config  config
	driver  string
	refused chan<- error
}

var _ registration.RegistrationServer = (*registrationServer)(nil)

func (s *registrationServer) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type: registration.CSIPlugin, Name: s.driver, Endpoint: s.config.registrationPath, SupportedVersions: []string{"1.0.0"},
	}, nil
}

func (s *registrationServer) NotifyRegistrationStatus(_ context.Context, status *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	log.Printf("kubelet says: registered=%t %s", status.GetPluginRegistered(), status.GetError())
	if status.GetPluginRegistered() {
		return &registration.RegistrationStatusResponse{}, nil
	}
	select {
	case s.refused <- fmt.Errorf("kubelet refused the driver %s: %s", s.driver, status.GetError()):
	default: // it is ending already
	}
	return &registration.RegistrationStatusResponse{}, nil
}

// serveHealth answers /healthz by what the registration's own socket answers, as the original does.
func serveHealth(address, socket string) (stop func(), err error) {
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("connect to the own socket: %w", err)
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on --http-endpoint: %w", err), conn.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), healthWithin)
		defer cancel()
		if _, err := registration.NewRegistrationClient(conn).GetInfo(ctx, &registration.InfoRequest{}); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: healthWithin}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Printf("health endpoint: %v", err)
		}
	}()
	return func() { _ = errors.Join(server.Close(), conn.Close()) }, nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove: %w", err)
	}
	return nil
}
