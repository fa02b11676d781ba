package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"

	"sharevol.dev/sharevol/internal/testbed"
	"sharevol.dev/sharevol/internal/testbed/guest"
)

const (
	// callsOfPod are the calls for a volume of a pod from its start to its end.
	callsOfPod = 4
	// atOnce is how many pods start and end at the same time, where many do.
	atOnce = 4
)

// footprint measures what the programs take of memory, and how long the node's takes to start.
func (l *lab) footprint(ctx context.Context) error {
	for range l.runs() {
		if err := l.start(ctx); err != nil {
			return err
		}
	}
	server, err := l.server(ctx)
	if err != nil {
		return err
	}
	if err := makeVolumes(server, atOnce); err != nil {
		return err
	}
	for range l.pick(3, 1) {
		if err := errors.Join(l.nodeMemory(ctx, server), l.podMemory(ctx, server, false), l.podMemory(ctx, server, true)); err != nil {
			return err
		}
	}
	return l.provisionerMemory(ctx)
}

// settled is waited for before memory is measured: what the programs have no more use for goes back by and by,
// sharevol-node's after 2 s.
func (l *lab) settled() { time.Sleep(time.Duration(l.pick(15, 1)) * time.Second) }

// start measures how long the program takes until it answers, and one that only says its version.
func (l *lab) start(ctx context.Context) error {
	log, err := os.Create(filepath.Join(testbed.GuestLogs, "version.log"))
	if err != nil {
		return err
	}
	defer log.Close() // it is for people
	for range l.pick(5, 2) {
		took, err := timed(command(ctx, log, filepath.Join(testbed.GuestShare, nodeProgram), "--version"))
		if err != nil {
			return err
		}
		p, err := startPlugin(ctx)
		if err != nil {
			return err
		}
		if err := errors.Join(l.sample("footprint/start/exec", took), l.sample("footprint/start/ready", milliseconds(p.ready)), p.end()); err != nil {
			return err
		}
	}
	return nil
}

// memory prints what the processes of a program take, in all.
func (l *lab) memory(name string, pids ...int) error {
	var sum memory
	for _, pid := range pids {
		m, err := measureMemory(pid)
		if err != nil {
			return err
		}
		sum.add(m)
	}
	l.note("%s: %d processes, %.1f MB resident, of which %.1f MB are no file's; %.1f MB with shared pages divided",
		name, sum.processes, sum.resident, sum.anonymous, sum.own)
	return errors.Join(
		l.sample("footprint/"+name, sum.resident), l.sample("footprint/"+name+"/own", sum.own),
		l.sample("footprint/"+name+"/anonymous", sum.anonymous), l.sample("footprint/"+name+"/processes", float64(sum.processes)),
	)
}

func (l *lab) nodeMemory(ctx context.Context, server *guest.NFSServer) (err error) {
	p, err := startPlugin(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.end()) }()
	l.settled()
	if err := l.memory("node/idle", p.pid()); err != nil {
		return err
	}
	start, pods := time.Now(), l.pick(1000, 40)/callsOfPod
	if err := p.pods(ctx, server, pods); err != nil {
		return err
	}
	l.note("%d calls took %s", pods*callsOfPod, time.Since(start).Round(time.Second))
	if err := errors.Join(l.memory("node/called", p.pid()), l.sample("footprint/calls", float64(pods*callsOfPod))); err != nil {
		return err
	}
	l.settled()
	return l.memory("node/after", p.pid())
}

// pods calls as kubelet does for so many pods, a few at once.
func (p *plugin) pods(ctx context.Context, server *guest.NFSServer, n int) error {
	if err := p.makePods(atOnce); err != nil {
		return err
	}
	var group errgroup.Group
	for i := range atOnce {
		group.Go(func() error {
			for j := i; j < n; j += atOnce {
				if err := p.pod(ctx, server, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

func (p *plugin) pod(ctx context.Context, server *guest.NFSServer, i int) error {
	_, err := called(ctx, func(ctx context.Context) error {
		_, err := p.node.NodeGetCapabilities(ctx, &csi.NodeGetCapabilitiesRequest{})
		return err
	})
	if err != nil {
		return err
	}
	if _, err := p.publish(ctx, server, i); err != nil {
		return err
	}
	if err := p.stats(ctx, i); err != nil {
		return err
	}
	_, err = p.unpublish(ctx, i)
	return err
}

// podMemory measures the processes of the node's pod, registered with kubelet in one of the two ways, and after
// a few calls.
func (l *lab) podMemory(ctx context.Context, server *guest.NFSServer, sidecar bool) (err error) {
	registry, err := os.MkdirTemp("/run", "registry-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(registry)) }()
	var args []string
	if !sidecar {
		args = append(args, "--registration-dir="+registry)
	}
	p, err := startPlugin(ctx, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.end()) }()
	pids, name := []int{p.pid()}, "pod/itself"
	if sidecar {
		registrar, err := startProcess(ctx, registrarProgram, registrarProgram, "--csi-address="+p.socket, "--kubelet-registration-path="+p.socket,
			"--plugin-registration-path="+registry, "--http-endpoint=127.0.0.1:29803", "--v=2")
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, registrar.stop()) }()
		pids, name = append(pids, registrar.pid()), "pod/sidecar"
	}
	if err := register(ctx, filepath.Join(registry, driver+"-reg.sock")); err != nil {
		return err
	}
	if err := p.pods(ctx, server, atOnce); err != nil {
		return err
	}
	l.settled()
	return l.memory(name, pids...)
}

// provisionerMemory measures the provisioner and its helpers with more and more shares in use.
func (l *lab) provisionerMemory(ctx context.Context) (err error) {
	cluster, err := l.controlPlane(ctx)
	if err != nil {
		return err
	}
	client := cluster.Client()
	server, err := l.server(ctx)
	if err != nil {
		return err
	}
	p, err := startProvisioner(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	l.settled()
	if err := l.memory("provisioner/0", p.pid()); err != nil {
		return err
	}
	for _, shares := range []int{1, 5, 20} {
		if err := use(ctx, client, server, shares); err != nil {
			return err
		}
		l.settled()
		if err := l.memory(fmt.Sprintf("provisioner/%d", shares), p.pid()); err != nil {
			return err
		}
	}
	return nil
}

// use has the provisioner use so many shares at the same time: helpers that have nothing to do end after a minute.
func use(ctx context.Context, client kubernetes.Interface, server *guest.NFSServer, shares int) error {
	var group errgroup.Group
	for i := range shares {
		group.Go(func() error {
			class := fmt.Sprintf("share-%d", i)
			err := os.Mkdir(server.Dir(class), 0o777)
			if err == nil {
				err = makeClass(ctx, client, class, server, "/"+class)
			}
			if err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
			_, err = makeClaim(ctx, client, fmt.Sprintf("%s-of-%d", class, shares), class)
			return err
		})
	}
	return group.Wait()
}
