// Package registration registers a CSI driver with kubelet, by kubelet's plugin
// registration API, so that the driver needs no node-driver-registrar beside it.
package registration

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"k8s.io/klog/v2"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"sharevol.dev/sharevol/internal/csiserver"
)

const (
	// csiVersion stands for every version 1 of CSI, as in node-driver-registrar.
	csiVersion = "1.0.0"
	// defaultCheck is how soon Serve notices a removed socket.
	defaultCheck = 5 * time.Second
	// stopGrace is how long a stop waits for kubelet's running call, and a new connection
	// may take for its handshake.
	stopGrace = 2 * time.Second
)

// errGone: another process removed the socket.
var errGone = errors.New("the registration socket is gone")

// Options are what is registered, and where.
type Options struct {
	// Dir is kubelet's registration directory, as this process sees it.
	Dir string
	// Driver is the CSI driver's name.
	Driver string
	// Endpoint is the path of the driver's CSI socket, as kubelet sees it.
	Endpoint string
	// Check is how often Serve checks that the socket is still there, every 5 s when zero.
	Check time.Duration
}

// Socket is the path at which kubelet finds the registration of driver in dir.
func Socket(dir, driver string) string {
	return filepath.Join(dir, driver+"-reg.sock")
}

// Registration is an open socket that kubelet asks about the driver.
type Registration struct {
	options Options
	path    string
	socket  *csiserver.Socket
}

// Listen opens the registration socket, in place of one that a killed process left
// there. kubelet calls as soon as it sees the socket, and then calls the driver, which
// must listen before. Anything but a socket at the socket's path stays and is an error,
// and so is a missing directory: kubelet would not watch one that was made here. Serve
// must follow.
func Listen(options Options) (*Registration, error) {
	if options.Check <= 0 {
		options.Check = defaultCheck
	}
	r := &Registration{options: options, path: Socket(options.Dir, options.Driver)}
	return r, r.listen()
}

func (r *Registration) listen() (err error) {
	if r.socket, err = csiserver.Listen(r.path); err != nil {
		return fmt.Errorf("open the registration socket: %w", err)
	}
	return nil
}

// Serve answers kubelet until ctx ends, and removes the socket. When another process
// removes the socket meanwhile, it makes the socket again, and kubelet registers the driver
// anew. It returns nil when ctx ended, and an error when kubelet refused the driver
// or the socket can't be kept: only a restart can fix either.
func (r *Registration) Serve(ctx context.Context) error {
	for {
		err := r.serve(ctx)
		if !errors.Is(err, errGone) {
			return err
		}
		klog.InfoS("Another process removed the registration socket; making it again", "socket", r.path)
		if err := r.listen(); err != nil {
			return err
		}
	}
}

// serve answers on one socket until ctx ends, kubelet refuses the driver or the
// socket is gone.
func (r *Registration) serve(ctx context.Context) error {
	refused := make(chan error, 1)
	server := grpc.NewServer(grpc.ConnectionTimeout(stopGrace))
	registerapi.RegisterRegistrationServer(server, &service{options: r.options, refused: refused})
	served := make(chan error, 1)
	go func() {
		defer close(served)
		served <- server.Serve(r.socket)
	}()

	err := r.watch(ctx, refused, served)
	// First of all, so that kubelet sends no more calls to a driver that is stopping.
	if removeErr := r.socket.Remove(); removeErr != nil {
		err = errors.Join(err, fmt.Errorf("remove the registration socket: %w", removeErr))
	}
	force := time.AfterFunc(stopGrace, server.Stop)
	defer force.Stop()
	server.GracefulStop()
	<-served
	return err
}

// watch waits until serve has to stop. It returns nil when ctx ended.
func (r *Registration) watch(ctx context.Context, refused, served <-chan error) error {
	ticker := time.NewTicker(r.options.Check)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-refused:
			return err
		case err := <-served:
			return fmt.Errorf("serve the registration on %s: %w", r.path, err)
		case <-ticker.C:
			if err := r.socket.Check(); errors.Is(err, fs.ErrNotExist) {
				return errGone
			} else if err != nil {
				return err
			}
		}
	}
}
