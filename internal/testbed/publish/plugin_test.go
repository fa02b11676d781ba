package publish

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"sharevol.dev/sharevol/internal/testbed"
	"sharevol.dev/sharevol/internal/testbed/guest"
)

const (
	// What the plugin promises for its calls, whatever the server does, and a little
	// for a busy machine. kubelet gives up on a call after 2 minutes.
	publishWithin   = 110 * time.Second
	unpublishWithin = 35 * time.Second
	statsWithin     = 30 * time.Second
	// soon is for what a live server does.
	soon = time.Minute
	// callTimeout is only there so that a call that hangs does not hang the tests.
	callTimeout = 3 * time.Minute
	// stopWithin is what the plugin promises for SIGTERM.
	stopWithin = 30 * time.Second
)

// plugin is the program, running, and kubelet's folder that it serves.
type plugin struct {
	dir    string // kubelet's folder
	socket string
	log    string

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{}

	conn *grpc.ClientConn
	node csi.NodeClient
}

// startPlugin starts the program, which runs until the end of the test: it must then
// leave neither a process nor a mount nor its socket.
func startPlugin(t *testing.T) *plugin {
	t.Helper()
	dir, err := os.MkdirTemp("/run", "kubelet-")
	check(t, err)
	p := &plugin{dir: dir, socket: filepath.Join(dir, "plugins", "csi.sock")}
	check(t, os.MkdirAll(filepath.Dir(p.socket), 0o750))
	log, err := os.CreateTemp(testbed.GuestLogs, strings.ReplaceAll(t.Name(), "/", "-")+"-*.log")
	check(t, err)
	p.log = log.Name()
	check(t, log.Close())
	p.conn, err = grpc.NewClient("unix://"+p.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(t, err)
	p.node = csi.NewNodeClient(p.conn)
	check(t, p.start(t.Context()))
	t.Cleanup(func() { p.end(t) })
	return p
}

// start starts the program and waits until it answers.
func (p *plugin) start(ctx context.Context) error {
	log, err := os.OpenFile(p.log, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer log.Close() // the child has its own
	cmd := exec.Command(filepath.Join(testbed.GuestShare, program),
		"--node-id=node", "--endpoint=unix://"+p.socket, "--kubelet-dir="+p.dir, "--http-address=127.0.0.1:0", "-v=4")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = cmd.Wait() // killed, most of the time
	}()
	p.mu.Lock()
	p.cmd, p.exited = cmd, exited
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	for {
		// The first answer may be that of the connection to the one before.
		_, err = p.node.NodeGetInfo(ctx, &csi.NodeGetInfoRequest{}, grpc.WaitForReady(true))
		if err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// signal sends a signal to the program, to it alone, and waits until it has ended.
func (p *plugin) signal(signal syscall.Signal, within time.Duration) error {
	p.mu.Lock()
	cmd, exited := p.cmd, p.exited
	p.mu.Unlock()
	if err := cmd.Process.Signal(signal); err != nil {
		return err
	}
	select {
	case <-exited:
		return nil
	case <-time.After(within):
		return fmt.Errorf("%v: still running after %s", signal, within)
	}
}

// restart kills the program and starts it again.
func (p *plugin) restart(t *testing.T) {
	t.Helper()
	check(t, p.signal(syscall.SIGKILL, soon))
	check(t, p.start(t.Context()))
}

// end stops the program and sees what it leaves.
func (p *plugin) end(t *testing.T) {
	if err := p.signal(syscall.SIGTERM, stopWithin); err != nil {
		t.Errorf("stop: %v", err)
		_ = p.signal(syscall.SIGKILL, stopWithin) // so that the tests after this one have a chance
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("it ended with status %d", code)
	}
	check(t, p.conn.Close())
	if _, err := os.Lstat(p.socket); !os.IsNotExist(err) {
		t.Errorf("its socket is left: %v", err)
	}
	within := time.Now().Add(soon)
	for mounts, busy := mountsBelow(t, p.dir), commands(t, p.dir); len(mounts)+len(busy) > 0; mounts, busy = mountsBelow(t, p.dir), commands(t, p.dir) {
		if time.Now().After(within) {
			t.Errorf("left behind: mounts %q, processes %q", mounts, busy)
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	check(t, os.RemoveAll(p.dir))
}

// vol is a volume on a server.
type vol struct {
	server *guest.NFSServer
	path   string // below the server's root
	flags  []string
}

var flags42 = []string{"nfsvers=4.2", "hard"}

// newVolume makes a volume's directory on a server.
func newVolume(t *testing.T, server *guest.NFSServer, name string) vol {
	t.Helper()
	check(t, os.Mkdir(server.Dir(name), 0o777))
	return vol{server: server, path: name, flags: flags42}
}

// target is where kubelet has a volume of a pod mounted.
func (p *plugin) target(pod, volume string) string {
	return filepath.Join(p.dir, "pods", pod, "volumes/kubernetes.io~csi", volume, "mount")
}

// publish calls the plugin as kubelet does.
func (p *plugin) publish(ctx context.Context, v vol, target string) error {
	return p.publishWith(ctx, v, target, func(*csi.NodePublishVolumeRequest) {})
}

func (p *plugin) publishWith(ctx context.Context, v vol, target string, change func(*csi.NodePublishVolumeRequest)) error {
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	share := "/"
	for _, flag := range v.flags {
		if flag == "nfsvers=3" {
			share = v.server.PathV3("/")
		}
	}
	request := &csi.NodePublishVolumeRequest{
		VolumeId: v.path, TargetPath: target,
		VolumeContext: map[string]string{"server": v.server.Address, "share": share, "subDir": v.path},
		VolumeCapability: &csi.VolumeCapability{
			AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{MountFlags: v.flags}},
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER},
		},
	}
	change(request)
	_, err := p.node.NodePublishVolume(ctx, request)
	return err
}

func (p *plugin) unpublish(ctx context.Context, target string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := p.node.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: "any", TargetPath: target})
	return err
}

// health returns what is wrong with a volume, nothing if it is well.
func (p *plugin) health(ctx context.Context, target string) ([]*csi.VolumeHealth_VolumeHealthEntry, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := p.node.NodeGetVolumeHealth(ctx, &csi.NodeGetVolumeHealthRequest{VolumeId: "any", VolumePublishPath: target})
	return answer.GetVolumeHealth().GetHealthStatuses(), err
}

func (p *plugin) stats(ctx context.Context, target string) (*csi.NodeGetVolumeStatsResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return p.node.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: "any", VolumePath: target})
}

// threads counts the program's threads.
func (p *plugin) threads(t *testing.T) int {
	t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", p.cmd.Process.Pid))
	check(t, err)
	return len(tasks)
}
