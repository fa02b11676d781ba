package main

import (
	"context"
	"errors"
	"path/filepath"
	"runtime/debug"
	"time"

	"google.golang.org/grpc/codes"
	"k8s.io/klog/v2"

	"sharevol.dev/sharevol/internal/csiserver"
	"sharevol.dev/sharevol/internal/fs"
	"sharevol.dev/sharevol/internal/health"
	"sharevol.dev/sharevol/internal/mount"
	"sharevol.dev/sharevol/internal/node"
)

// serve runs the program until ctx ends.
func serve(ctx context.Context, config Config) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	socket, err := csiserver.SocketPath(config.Endpoint)
	if err != nil {
		return err
	}
	probes, err := health.Listen(config.HTTPAddress)
	if err != nil {
		return err
	}
	if err := config.makeSocketDir(socket); err != nil {
		return err
	}
	calls, err := csiserver.Listen(socket)
	if err != nil {
		return err
	}
	register, err := config.register(socket) // kubelet may call from here on
	if err != nil {
		return errors.Join(err, calls.Close())
	}
	metrics := node.NewMetrics(version)
	mounter := mount.New(mount.Options{Helpers: fs.Types.Helpers(), Exclusive: true, Unmounted: metrics.Unmounted})
	// The program may write beside its socket.
	server := node.New(mounter, node.Options{NodeID: config.NodeID, KubeletDir: config.KubeletDir, TrialDir: filepath.Dir(socket)})
	metrics.Watch(server)
	klog.InfoS("Starting", "version", version, "driver", config.DriverName, "node", config.NodeID, "socket", socket)
	served := make(chan error, 1)
	go func() {
		defer cancel()
		// Through the socket, so that a server that hangs fails the probe.
		alive := func(ctx context.Context) error { return csiserver.Alive(ctx, socket) }
		ready := func(ctx context.Context) error { return csiserver.Probe(ctx, socket) }
		served <- health.Serve(ctx, probes, health.Options{Healthy: alive, Ready: ready, Metrics: metrics.Handler()})
	}()
	registered := make(chan error, 1)
	go func() {
		defer cancel()
		registered <- register(ctx)
	}()
	tidied := make(chan struct{})
	go func() {
		defer close(tidied)
		if err := server.Tidy(ctx); err != nil {
			klog.ErrorS(err, "Cleanup after the previous run failed")
		}
	}()
	identity := node.NewIdentity(config.DriverName, version, mounter)
	called, end := giveBack(giveBackAfter, debug.FreeOSMemory)
	defer end()
	err = csiserver.Serve(ctx, calls, csiserver.Services{Identity: identity, Node: server, ObserveCall: func(method string, code codes.Code, d time.Duration) {
		metrics.ObserveCall(method, code, d)
		called(method)
	}})
	cancel()
	<-tidied
	return errors.Join(err, <-served, <-registered)
}
