package machine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"sharevol.dev/sharevol/internal/testbed/guest"
)

const (
	startWithin = time.Minute
	callWithin  = 3 * time.Minute
	socketPoll  = time.Millisecond
)

// mountFlags are the volumes' mount options, and those of the bare commands.
var mountFlags = []string{"nfsvers=4.2", "hard"}

// plugin is sharevol-node as a process, and kubelet's folder that it serves.
type plugin struct {
	*process
	dir    string // kubelet's folder
	socket string
	ready  time.Duration // from its start until it answered
	conn   *grpc.ClientConn
	node   csi.NodeClient
}

// startPlugin starts the program with the arguments of the manifests and more, and waits until it answers.
func startPlugin(ctx context.Context, args ...string) (*plugin, error) {
	dir, err := os.MkdirTemp("/run", "kubelet-")
	if err != nil {
		return nil, err
	}
	p := &plugin{dir: dir, socket: filepath.Join(dir, "plugins", "csi.sock")}
	if err := os.MkdirAll(filepath.Dir(p.socket), 0o750); err != nil {
		return nil, err
	}
	p.conn, err = grpc.NewClient("unix://"+p.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	p.node = csi.NewNodeClient(p.conn)
	start := time.Now()
	p.process, err = startProcess(ctx, nodeProgram, nodeProgram, append([]string{
		"--driver-name=csi.sharevol.dev", "--node-id=node", "--endpoint=unix://" + p.socket,
		"--http-address=127.0.0.1:0", "-v=2", "--kubelet-dir=" + p.dir,
	}, args...)...)
	if err != nil {
		return nil, err
	}
	if err := p.answers(ctx); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	p.ready = time.Since(start)
	return p, nil
}

// answers waits until the program answers a call.
func (p *plugin) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	err := guest.WaitFor(ctx, "the socket of "+nodeProgram, socketPoll, func(ctx context.Context) (bool, string, error) {
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "unix", p.socket) // gRPC would wait a second before it tries again
		if err != nil {
			return false, err.Error(), nil
		}
		return true, "", conn.Close()
	})
	if err != nil {
		return err
	}
	_, err = p.node.NodeGetInfo(ctx, &csi.NodeGetInfoRequest{})
	return err
}

// end stops the program. It must have left nothing mounted.
func (p *plugin) end() error {
	return errors.Join(p.stop(), p.conn.Close(), os.RemoveAll(p.dir))
}

// target is where kubelet has a volume mounted for a pod.
func (p *plugin) target(i int) string {
	return filepath.Join(p.dir, "pods", fmt.Sprintf("pod-%d", i), "volumes/kubernetes.io~csi/v/mount")
}

// makePods makes the folders of n pods, as kubelet does before it calls.
func (p *plugin) makePods(n int) error {
	for i := range n {
		if err := os.MkdirAll(filepath.Dir(p.target(i)), 0o750); err != nil {
			return err
		}
	}
	return nil
}

func capability() *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{MountFlags: mountFlags}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER},
	}
}

// publish publishes the volume directory i of a server for pod i, and returns how long the call took.
func (p *plugin) publish(ctx context.Context, server *guest.NFSServer, i int) (float64, error) {
	request := &csi.NodePublishVolumeRequest{
		VolumeId: volume(i), TargetPath: p.target(i), VolumeCapability: capability(),
		VolumeContext: map[string]string{"server": server.Address, "share": "/", "subDir": volume(i)},
	}
	return called(ctx, func(ctx context.Context) error {
		_, err := p.node.NodePublishVolume(ctx, request)
		return err
	})
}

func (p *plugin) unpublish(ctx context.Context, i int) (float64, error) {
	request := &csi.NodeUnpublishVolumeRequest{VolumeId: volume(i), TargetPath: p.target(i)}
	return called(ctx, func(ctx context.Context) error {
		_, err := p.node.NodeUnpublishVolume(ctx, request)
		return err
	})
}

func (p *plugin) stats(ctx context.Context, i int) error {
	request := &csi.NodeGetVolumeStatsRequest{VolumeId: volume(i), VolumePath: p.target(i)}
	_, err := called(ctx, func(ctx context.Context) error {
		_, err := p.node.NodeGetVolumeStats(ctx, request)
		return err
	})
	return err
}

// called returns how long a call took, in milliseconds.
func called(ctx context.Context, call func(context.Context) error) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	start := time.Now()
	err := call(ctx)
	return milliseconds(time.Since(start)), err
}

// volume is the name of a volume directory.
func volume(i int) string { return fmt.Sprintf("volume-%d", i) }

// makeVolumes makes n volume directories on a server.
func makeVolumes(server *guest.NFSServer, n int) error {
	for i := range n {
		if err := os.Mkdir(server.Dir(volume(i)), 0o777); err != nil {
			return fmt.Errorf("make a volume: %w", err)
		}
	}
	return nil
}
