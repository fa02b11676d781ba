// Package csiserver serves CSI services on a unix socket: it replaces a socket that a killed
// process left, logs each call without its secrets, and stops gracefully.
package csiserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"k8s.io/klog/v2"
)

// stopGrace is how long running calls may take to end at a stop.
const stopGrace = 5 * time.Second

// SocketPath returns the path of endpoint: "unix:///path", "unix:/path" or
// "/path", absolute.
func SocketPath(endpoint string) (string, error) {
	path := endpoint
	if rest, found := strings.CutPrefix(endpoint, "unix:"); found {
		path = "/" + strings.TrimLeft(rest, "/")
		if !strings.HasPrefix(rest, "/") {
			path = ""
		}
	}
	if !strings.HasPrefix(path, "/") || path == "/" || strings.HasSuffix(path, "/") {
		return "", errors.New("must be the absolute path of a unix socket, for example unix:///csi/csi.sock")
	}
	// The kernel's limit for sun_path, less the closing zero (unix(7)).
	if path = filepath.Clean(path); len(path) > 107 {
		return "", errors.New("must not be longer than 107 bytes")
	}
	return path, nil
}

// Socket is an open unix socket.
type Socket struct {
	*net.UnixListener
	path string
	made fs.FileInfo // its own file: another one may have taken its place
}

// Listen opens the unix socket at path, for its owner only, in place of one that a
// killed process left there. Anything else at path stays and is an error.
func Listen(path string) (*Socket, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("%s exists and is not a socket; it was not changed: move it away", path)
	default:
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("replace the socket of an earlier run: %w", err)
		}
	}
	// The socket's file gets the mode of the descriptor that is bound to it (less umask),
	// so that it is never open to others, not even at first.
	config := net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) error {
		var failed error
		err := conn.Control(func(fd uintptr) { failed = syscall.Fchmod(int(fd), 0o600) })
		return errors.Join(err, failed)
	}}
	opened, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	listener := opened.(*net.UnixListener)
	listener.SetUnlinkOnClose(false) // that would go by the name
	made, err := os.Lstat(path)
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return &Socket{UnixListener: listener, path: path, made: made}, nil
}

// Check returns an error unless the socket is still at its path. It matches
// fs.ErrNotExist if nothing is there, and is another one if something else is.
func (s *Socket) Check() error {
	info, err := os.Lstat(s.path)
	if err == nil && !os.SameFile(info, s.made) {
		err = fmt.Errorf("another process replaced the socket %s", s.path)
	}
	return err
}

// Remove removes the socket's file, but nothing that has taken its place. New connections
// fail then; those that are open go on.
func (s *Socket) Remove() error {
	// While the socket is open, no other file gets its number.
	if s.Check() != nil {
		return nil
	}
	if err := os.Remove(s.path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Close removes the socket's file and closes the socket. A second Close is an error.
func (s *Socket) Close() error { return errors.Join(s.Remove(), s.UnixListener.Close()) }

// Services are what is served.
type Services struct {
	Identity csi.IdentityServer
	Node     csi.NodeServer
	// ObserveCall, when not nil, is called after each call with its full method
	// ("/csi.v1.Node/NodePublishVolume"), its code and its duration.
	ObserveCall func(method string, code codes.Code, d time.Duration)
}

// connectionBuffer is what a connection reads and writes at once, in bytes. Calls are
// hundreds of bytes, one at a time on a connection that kubelet makes for it; gRPC's own
// buffers would be eight times as big, two for each.
const connectionBuffer = 4 << 10

// Serve answers calls on listener until ctx ends, then lets the running ones end
// for 5 s, ends the contexts of those that have not, and removes the socket. It
// returns nil when ctx ended.
func Serve(ctx context.Context, listener net.Listener, services Services) error {
	// A call that is cut off still ends in order: it kills what it runs, and undoes what it half did.
	// A connection on which nothing is sent would hold up the stop for two minutes.
	server := grpc.NewServer(grpc.ChainUnaryInterceptor(services.observe, logCalls, limit, recoverPanics), grpc.WaitForHandlers(true),
		grpc.ConnectionTimeout(stopGrace), grpc.ReadBufferSize(connectionBuffer), grpc.WriteBufferSize(connectionBuffer))
	csi.RegisterIdentityServer(server, services.Identity)
	csi.RegisterNodeServer(server, services.Node)
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		force := time.AfterFunc(stopGrace, server.Stop)
		defer force.Stop()
		server.GracefulStop()
	})
	err := server.Serve(listener)
	if !stop() {
		<-stopped
	}
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("serve CSI on %s: %w", listener.Addr(), err)
}

// Probe calls the identity service on the socket at path, as kubelet would. The
// error has the reason why the service does not answer or is not ready.
func Probe(ctx context.Context, path string) error {
	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	answer, err := csi.NewIdentityClient(conn).Probe(ctx, &csi.ProbeRequest{})
	if err != nil {
		return err
	}
	if ready := answer.GetReady(); ready != nil && !ready.GetValue() {
		return errors.New("the CSI service is not ready")
	}
	return nil
}

// Alive calls the identity service on the socket at path. Only a service that does
// not answer is an error: a restart does not help one that answers what it lacks.
func Alive(ctx context.Context, path string) error {
	if err := Probe(ctx, path); status.Code(err) != codes.FailedPrecondition {
		return err
	}
	return nil
}

// observe calls ObserveCall.
func (s Services) observe(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	started := time.Now()
	answer, err := handle(ctx, request)
	if s.ObserveCall != nil {
		s.ObserveCall(info.FullMethod, status.Code(err), time.Since(started))
	}
	return answer, err
}

// logCalls logs a call's method, volume, target, outcome and duration, and never
// the request itself: it may hold secrets.
func logCalls(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	fields := []any{"method", info.FullMethod}
	if r, ok := request.(interface{ GetVolumeId() string }); ok {
		fields = append(fields, "volume", shorten(r.GetVolumeId()))
	}
	if r, ok := request.(interface{ GetTargetPath() string }); ok {
		fields = append(fields, "targetPath", shorten(r.GetTargetPath()))
	}
	logger := klog.FromContext(ctx).WithValues(fields...)
	started := time.Now()
	answer, err := handle(klog.NewContext(ctx, logger), request)
	if err != nil {
		logger.Error(err, "CSI call failed", "code", status.Code(err), "duration", time.Since(started))
		return nil, err
	}
	logger.V(4).Info("CSI call done", "duration", time.Since(started))
	return answer, nil
}

// maxText is how much of a message goes to kubelet and into the log: a request may
// have a megabyte of faults in it.
const maxText = 4 << 10

// limit shortens the messages of errors.
func limit(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	answer, err := handle(ctx, request)
	if failed := status.Convert(err); len(failed.Message()) > maxText {
		err = status.Error(failed.Code(), shorten(failed.Message()))
	}
	return answer, err
}

func shorten(text string) string {
	if len(text) <= maxText {
		return text
	}
	return fmt.Sprintf("%s... and %d bytes more", strings.ToValidUTF8(text[:maxText], ""), len(text)-maxText)
}

// recoverPanics keeps a bug that one call meets from ending the plugin for all volumes.
func recoverPanics(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (answer any, err error) {
	defer func() {
		if r := recover(); r != nil {
			// Not a final code: the call may have mounted something.
			err = status.Errorf(codes.Unavailable, "panic: %v", r)
		}
	}()
	return handle(ctx, request)
}
