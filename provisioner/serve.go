package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/klog/v2"

	"sharevol.dev/sharevol/internal/cluster"
	"sharevol.dev/sharevol/internal/controller"
	"sharevol.dev/sharevol/internal/election"
	"sharevol.dev/sharevol/internal/events"
	"sharevol.dev/sharevol/internal/fence"
	"sharevol.dev/sharevol/internal/fs"
	"sharevol.dev/sharevol/internal/health"
	"sharevol.dev/sharevol/internal/kubeclient"
	"sharevol.dev/sharevol/internal/mount"
	"sharevol.dev/sharevol/internal/provision"
	"sharevol.dev/sharevol/internal/share"
	"sharevol.dev/sharevol/internal/volume"
)

// The stop: helpers and mounts, then the calls that waited for them, within the 10 s
// that are promised.
const (
	closeTimeout = 7 * time.Second
	drainTimeout = time.Second
)

// askAgain is how often an API server that does not answer at start is asked again.
const askAgain = 2 * time.Second

// serve runs the program until ctx ends, or the lease is lost.
func serve(ctx context.Context, config Config) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	listener, err := health.Listen(config.HTTPAddress)
	if err != nil {
		return err
	}
	p := &program{config: config, fence: fence.Unfenced(), recovered: make(chan struct{}, 1)}
	if config.LeaderElect {
		p.fence = &fence.Fence{}
	}
	if err := p.connect(ctx); err != nil {
		return errors.Join(err, listener.Close())
	}
	klog.InfoS("Starting", "version", version, "driver", config.DriverName)
	served := make(chan error, 1)
	go func() {
		defer cancel()
		served <- health.Serve(ctx, listener, p.answers())
	}()
	err = p.work(ctx)
	klog.InfoS("Stopping")
	cancel()
	return errors.Join(err, <-served)
}

// answers are what the program says over HTTP.
func (p *program) answers() health.Options {
	options := health.Options{Ready: p.ready, Metrics: p.metrics.Handler()}
	if p.config.Profile {
		options.Profile = profiles()
	}
	return options
}

// program is what the parts of the program are wired to.
type program struct {
	config  Config
	fence   *fence.Fence
	clients clients
	cluster *cluster.Cluster
	metrics *controller.Metrics
	shares  *share.Manager
	// recovered gets one when a share is available again.
	recovered chan struct{}
	serving   atomic.Bool // whether lead has begun to
}

// connect makes the parts that a standby has too.
func (p *program) connect(ctx context.Context) (err error) {
	if p.clients, err = newClients(p.config, p.fence); err != nil {
		return err
	}
	options := share.Options{
		Premounted: p.config.Premounted,
		// One share gets at most a quarter of the workers: a slow one leaves the rest to others.
		Concurrency: max(1, p.config.WorkerThreads/4),
		Fence:       p.fence,
		OnRecovery:  p.noteRecovery,
		Observe: func(s volume.Share, operation string, err error, took time.Duration) {
			p.metrics.Observe(s, operation, err, took)
		},
	}
	if len(p.config.Premounted) == 0 {
		mounter := mount.New(mount.Options{Helpers: fs.Types.Helpers()})
		if err := mounter.Check(); err != nil {
			return fmt.Errorf("shares can't be mounted (--premounted serves without mounting): %w", err)
		}
		options.Mounter = mounter
	}
	p.shares = share.NewManager(options)
	p.metrics = controller.NewMetrics(version, p.shares.States, func() bool { return p.fence.Check() == nil })
	p.cluster, err = cluster.New(p.clients.work, p.config.names())
	return err
}

// noteRecovery has the controller, if there is one, try all that waits again.
func (p *program) noteRecovery() {
	select {
	case p.recovered <- struct{}{}:
	default: // it will
	}
}

// ready returns an error while the program could not do its part: a standby's is to
// know all claims, volumes and classes, a leader's to serve them and to be allowed to.
func (p *program) ready(ctx context.Context) error {
	if err := p.cluster.Ready(ctx); err != nil {
		return err
	}
	switch leads, serves := p.fence.Check(), p.serving.Load(); {
	case leads == nil && !serves:
		return errors.New("leading, but waiting for the UID of namespace kube-system")
	case leads != nil && serves:
		return leads
	}
	return nil
}

// work does the program's work while it may: always, or while it holds the lease.
func (p *program) work(ctx context.Context) error {
	p.cluster.Start(ctx) // a standby's are full when its turn comes
	go p.thrift(ctx)
	if !p.config.LeaderElect {
		return p.lead(ctx)
	}
	options := election.Options{
		Client:    p.clients.lease,
		Namespace: p.config.LeaseNamespace,
		Name:      p.config.LeaseName,
		Identity:  identity(),
		Fence:     p.fence,
		OnNewLeader: func(identity string) {
			klog.InfoS("New leader elected", "leader", identity, "lease", klog.KRef(p.config.LeaseNamespace, p.config.LeaseName))
		},
	}
	return untilStopped(func(lead func(context.Context) error) error { return election.Run(ctx, options, lead) }, p.lead)
}

// untilStopped has elect, which is election.Run, call lead. When the lease was lost it
// waits for a lead that has begun: that may write no more, but has helpers to end and
// shares to unmount.
func untilStopped(elect func(lead func(context.Context) error) error, lead func(context.Context) error) error {
	var begun atomic.Bool
	ended := make(chan struct{})
	err := elect(func(ctx context.Context) error {
		begun.Store(true)
		defer close(ended)
		return lead(ctx)
	})
	if errors.Is(err, fence.ErrLost) && begun.Load() {
		select {
		case <-ended:
		case <-time.After(drainTimeout + closeTimeout):
		}
	}
	return err
}

// lead provisions and deletes until ctx ends.
func (p *program) lead(ctx context.Context) error {
	var clusterID string
	err := p.untilAnswered(ctx, "Waiting for the UID of namespace kube-system", func(ctx context.Context) (err error) {
		clusterID, err = kubeclient.ClusterID(ctx, p.clients.work)
		return err
	})
	if err == nil && len(p.config.Adopted) > 0 {
		err = p.alone(ctx)
	}
	switch {
	case ctx.Err() != nil:
		return nil // it has ended before there was anything to do
	case err != nil:
		return err
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	if len(p.config.Adopted) > 0 {
		go func() { end(p.beside(ctx)) }()
	}
	client := events.Limit(ctx, p.clients.work, p.clients.events, p.config.eventBudget())
	provisioner := provision.New(provision.Options{
		Cluster: p.cluster, ClusterID: clusterID, Shares: p.shares, Client: p.clients.work, Fence: p.fence.Check,
	})
	serving := controller.New(controller.Options{
		Client: client, Cluster: p.cluster, Shares: p.shares, Provisioner: provisioner,
		Workers: p.config.WorkerThreads, Recovered: p.recovered,
	})
	go provisioner.DropRecords(ctx)
	klog.InfoS("Serving claims", "driver", p.config.DriverName)
	p.serving.Store(true)
	serving.Run(ctx)
	err = p.stop(provisioner)
	if cause := context.Cause(ctx); errors.Is(cause, election.ErrIncumbent) {
		err = errors.Join(cause, err)
	}
	return err
}

// stop ends the calls that run, between two of their steps, and unmounts the shares.
// Its error says that something may still be at work: then the lease must run out.
func (p *program) stop(provisioner *provision.Provisioner) error {
	closing, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := p.shares.Close(closing)
	drain, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	return errors.Join(err, provisioner.Drain(drain))
}

// alone waits until it is known that none of the adopted provisioners is at work any
// more. It is an error if one is: two would serve each claim.
func (p *program) alone(ctx context.Context) error {
	var incumbent error
	err := p.untilAnswered(ctx, "Waiting for the API server's answer whether an adopted provisioner still runs", func(ctx context.Context) error {
		err := election.CheckIncumbents(ctx, p.clients.work, 0, election.Locks{Namespace: p.config.AdoptNamespace, Names: p.config.Adopted.locks()})
		if errors.Is(err, election.ErrIncumbent) || apierrors.IsForbidden(err) {
			incumbent, err = err, nil
		}
		return err
	})
	if incumbent != nil {
		return endFirst(incumbent)
	}
	return err
}

// beside returns an error when an adopted provisioner is at work again, and nil when ctx
// ends.
func (p *program) beside(ctx context.Context) error {
	if err := election.WatchIncumbents(ctx, p.clients.work, 0, election.Locks{Namespace: p.config.AdoptNamespace, Names: p.config.Adopted.locks()}); err != nil {
		return endFirst(err)
	}
	return nil
}

func endFirst(incumbent error) error {
	return fmt.Errorf("--adopt-provisioner: end the old provisioner first (kubectl scale --replicas=0): %w", incumbent)
}

// untilAnswered repeats ask until it succeeds or ctx ends.
func (p *program) untilAnswered(ctx context.Context, waiting string, ask func(context.Context) error) error {
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		klog.ErrorS(err, waiting)
		select {
		case <-time.After(askAgain):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// identity tells this replica from others. A pod's name does for every restart of its
// container, so that a restarted one need not wait for its own lease.
func identity() string {
	if pod := os.Getenv("POD_NAME"); pod != "" {
		return pod
	}
	host, _ := os.Hostname() // only for people who look at the Lease
	return host + "_" + rand.Text()
}
