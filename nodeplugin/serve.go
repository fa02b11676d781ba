package main

import (
	"context"
	"errors"

	"k8s.io/klog/v2"

	"sharevol.dev/sharevol/internal/csiserver"
	"sharevol.dev/sharevol/internal/health"
	"sharevol.dev/sharevol/internal/nfsmount"
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
	calls, err := csiserver.Listen(socket)
	if err != nil {
		return err
	}
	mounter := nfsmount.New(nfsmount.Options{})
	klog.InfoS("Starting", "version", version, "driver", config.DriverName, "node", config.NodeID, "socket", socket)
	served := make(chan error, 1)
	go func() {
		defer cancel()
		// Through the socket, so that a server that hangs is found out.
		alive := func(ctx context.Context) error { return csiserver.Alive(ctx, socket) }
		ready := func(ctx context.Context) error { return csiserver.Probe(ctx, socket) }
		served <- health.Serve(ctx, probes, health.Options{Healthy: alive, Ready: ready})
	}()
	err = csiserver.Serve(ctx, calls, node.NewIdentity(config.DriverName, version, mounter), node.New(config.NodeID, mounter))
	cancel()
	return errors.Join(err, <-served)
}
