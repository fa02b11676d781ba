package provision

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v8/controller"
)

// ResyncPeriod is how often every claim and volume is looked at again without a change.
const ResyncPeriod = 15 * time.Minute

// Controller runs Provisioners against an API server.
type Controller struct {
	named  []named
	events record.EventBroadcaster
	sink   record.EventSink
}

// named is the controller library's controller of one provisioner's name: it deletes
// the volumes of one only.
type named struct {
	controller      *controller.ProvisionController
	claims, volumes *kicked
}

// NewController returns the controller that serves the claims of classes with the
// provisioner's driver name, and of those that it has adopted, with workers claims and
// as many deletions at a time, all names together. workers must be at least 1. client
// is what the controller library calls. Drain of the Provisioner is that of all names.
func NewController(client kubernetes.Interface, options Options, workers int) (*Controller, *Provisioner) {
	options.Workers = workers
	provisioner := New(options)
	c := &Controller{events: record.NewBroadcaster(), sink: &corev1.EventSinkImpl{Interface: client.CoreV1().Events(v1.NamespaceAll)}}
	shared := common{limits: newLimits(), unsaved: &unsaved{}, events: c.events, workers: workers}
	for _, f := range provisioner.formats {
		c.named = append(c.named, newNamed(client, provisioner, f, shared))
	}
	return c, provisioner
}

// common is what the controllers of all names share.
type common struct {
	limits
	unsaved *unsaved
	events  record.EventBroadcaster
	workers int
}

// newNamed makes the library's controller of one name. The library's defaults that
// would hurt are replaced: it gives up after 15 failures, removes the directory when
// the PersistentVolume can't be saved, and its leader election asks for a lock that
// client-go no longer has.
func newNamed(client kubernetes.Interface, provisioner *Provisioner, f format, shared common) named {
	pace := newPace(shared.retries)
	caches := provisioner.options.Caches
	n := named{
		claims: &kicked{
			SharedIndexInformer: caches.claims, mine: claimOf(f.name()), waits: claimWaits,
			unsaved: shared.unsaved,
		},
		volumes: &kicked{
			SharedIndexInformer: caches.volumes, mine: served(volumeOf(f.name()), provisioner.as(f, nil)), waits: volumeWaits,
			unsaved: shared.unsaved,
		},
	}
	saver := saving{
		Interface: client, unsaved: shared.unsaved,
		recorder: shared.events.NewRecorder(scheme.Scheme, v1.EventSource{Component: f.name()}),
	}
	n.controller = controller.NewProvisionController(saver, f.name(), provisioner.as(f, pace.note),
		controller.LeaderElection(false),
		controller.AddFinalizer(true),
		controller.Threadiness(shared.workers),
		controller.ClaimsInformer(n.claims),
		controller.VolumesInformer(n.volumes),
		controller.ClassesInformer(caches.classes),
		controller.ResyncPeriod(ResyncPeriod),
		controller.RateLimiter(pace),
		controller.CreateProvisionedPVLimiter(newPace(shared.saves)),
		controller.FailedProvisionThreshold(0),
		controller.FailedDeleteThreshold(0),
	)
	return n
}

// Run serves until ctx ends and returns at once then, while calls of the
// Provisioner may still run: Provisioner.Drain waits for them. (The library's own
// Run never returns; its goroutine ends with the process.)
func (c *Controller) Run(ctx context.Context) {
	c.events.StartRecordingToSink(c.sink)
	defer c.events.Shutdown()
	for _, n := range c.named {
		go n.controller.Run(ctx)
	}
	<-ctx.Done()
}

// Kick has every waiting claim and volume tried at once, whatever its backoff: a
// share is back.
func (c *Controller) Kick() {
	for _, n := range c.named {
		n.claims.kick()
		n.volumes.kick()
	}
}
