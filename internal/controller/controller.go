// Package controller runs the provisioner under sig-storage-lib-external-provisioner: thin
// adapters between that library's controllers, one for each provisioner's name, and package
// provision, with their retries, limits and figures.
package controller

import (
	"context"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	lib "sigs.k8s.io/sig-storage-lib-external-provisioner/v8/controller"

	"sharevol.dev/sharevol/internal/cluster"
	"sharevol.dev/sharevol/internal/provision"
	"sharevol.dev/sharevol/internal/share"
)

// Options of a Controller. All fields but Recovered are required.
type Options struct {
	// Client is what the library calls.
	Client  kubernetes.Interface
	Cluster *cluster.Cluster
	// Shares says which shares are served.
	Shares      share.Doer
	Provisioner *provision.Provisioner
	// Workers is how many claims, and how many deletions, are worked on at a time for all
	// names together; at least 1.
	Workers int
	// Recovered tells of shares that are available again: all that waits is tried at once.
	Recovered <-chan struct{}
}

// Controller runs a Provisioner against an API server.
type Controller struct {
	options     Options
	controllers []named
	events      record.EventBroadcaster
	sink        record.EventSink
}

// named is the library's controller of one provisioner's name: it deletes the volumes of
// one only.
type named struct {
	controller      *lib.ProvisionController
	claims, volumes *filteredInformer
}

// New returns the controller that serves the claims of classes with the names of
// Options.Cluster.
func New(options Options) *Controller {
	c := &Controller{
		options: options, events: record.NewBroadcaster(),
		sink: &corev1.EventSinkImpl{Interface: options.Client.CoreV1().Events(v1.NamespaceAll)},
	}
	all := common{limits: newLimits(), unsaved: &unsavedPVs{}, workers: newWorkers(options.Workers)}
	for _, f := range options.Cluster.Formats() {
		c.controllers = append(c.controllers, c.newNamed(f, all))
	}
	return c
}

// common is what the controllers of all names share.
type common struct {
	limits
	unsaved *unsavedPVs
	workers workers
}

// newNamed makes the library's controller of one name. The library's defaults that
// would hurt are replaced: it gives up after 15 failures, removes the directory when
// the PersistentVolume can't be saved, and its leader election asks for a lock that
// client-go no longer has.
func (c *Controller) newNamed(f cluster.Format, all common) named {
	retries := newRetryPolicy(all.retries)
	adapter := &adapter{format: f, options: c.options, workers: all.workers, retries: retries}
	n := named{
		claims:  &filteredInformer{SharedIndexInformer: c.options.Cluster.Claims, wants: claimOf(f.Provisioner()), waits: claimWaits, unsaved: all.unsaved},
		volumes: &filteredInformer{SharedIndexInformer: c.options.Cluster.Volumes, wants: adapter.wantsVolume, waits: volumeWaits, unsaved: all.unsaved},
	}
	client := savingClient{
		Interface: c.options.Client, unsaved: all.unsaved,
		recorder: c.events.NewRecorder(scheme.Scheme, v1.EventSource{Component: f.Provisioner()}),
	}
	n.controller = lib.NewProvisionController(client, f.Provisioner(), adapter,
		lib.LeaderElection(false),
		lib.AddFinalizer(true),
		lib.Threadiness(c.options.Workers),
		lib.ClaimsInformer(n.claims),
		lib.VolumesInformer(n.volumes),
		lib.ClassesInformer(c.options.Cluster.Classes),
		lib.ResyncPeriod(cluster.ResyncPeriod),
		lib.RateLimiter(retries),
		lib.CreateProvisionedPVLimiter(newRetryPolicy(all.saves)),
		lib.FailedProvisionThreshold(0),
		lib.FailedDeleteThreshold(0),
	)
	return n
}

// Run serves until ctx ends and returns at once then, while calls of the Provisioner may
// still run: Provisioner.Drain waits for them. (The library's own Run never returns; its
// goroutine ends with the process.)
func (c *Controller) Run(ctx context.Context) {
	c.events.StartRecordingToSink(c.sink)
	defer c.events.Shutdown()
	for _, n := range c.controllers {
		go n.controller.Run(ctx)
	}
	for {
		select {
		case <-c.options.Recovered:
			c.retryAll()
		case <-ctx.Done():
			return
		}
	}
}

// retryAll has every waiting claim and volume tried at once, whatever its backoff: a
// share is back.
func (c *Controller) retryAll() {
	for _, n := range c.controllers {
		n.claims.retryAll()
		n.volumes.retryAll()
	}
}
