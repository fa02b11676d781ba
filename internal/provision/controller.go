package provision

import (
	"context"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v8/controller"
)

// ResyncPeriod is how often every claim and volume is looked at again without a change.
const ResyncPeriod = 15 * time.Minute

// Controller runs a Provisioner against an API server.
type Controller struct {
	controller      *controller.ProvisionController
	claims, volumes *kicked
	events          record.EventBroadcaster
	sink            record.EventSink
}

// NewController returns the controller that serves the claims of classes with the
// provisioner's driver name, with workers claims and as many deletions at a time.
// workers must be at least 1. client is what the controller library calls.
//
// The library's defaults that would hurt are replaced: it gives up after 15
// failures, removes the directory when the PersistentVolume can't be saved, and
// its leader election asks for a lock that client-go no longer has.
func NewController(client kubernetes.Interface, options Options, workers int) (*Controller, *Provisioner) {
	pace := newPace()
	options.Note = pace.note
	provisioner := New(options)
	failed := &unsaved{}
	claims := &kicked{SharedIndexInformer: options.Caches.claims, waits: claimWaits, unsaved: failed}
	volumes := &kicked{SharedIndexInformer: options.Caches.volumes, waits: volumeWaits, unsaved: failed}
	broadcaster := record.NewBroadcaster()
	recorder := broadcaster.NewRecorder(scheme.Scheme, v1.EventSource{Component: options.DriverName})
	return &Controller{
		claims:  claims,
		volumes: volumes,
		events:  broadcaster,
		sink:    &corev1.EventSinkImpl{Interface: client.CoreV1().Events(v1.NamespaceAll)},
		controller: controller.NewProvisionController(saving{client, recorder, failed}, options.DriverName, provisioner,
			controller.LeaderElection(false),
			controller.AddFinalizer(true),
			controller.Threadiness(workers),
			controller.ClaimsInformer(claims),
			controller.VolumesInformer(volumes),
			controller.ClassesInformer(options.Caches.classes),
			controller.ResyncPeriod(ResyncPeriod),
			controller.RateLimiter(pace),
			controller.CreateProvisionedPVLimiter(newPace()),
			controller.FailedProvisionThreshold(0),
			controller.FailedDeleteThreshold(0),
		),
	}, provisioner
}

// Run serves until ctx ends and returns at once then, while calls of the
// Provisioner may still run: Provisioner.Drain waits for them. (The library's own
// Run never returns; its goroutine ends with the process.)
func (c *Controller) Run(ctx context.Context) {
	c.events.StartRecordingToSink(c.sink)
	defer c.events.Shutdown()
	go c.controller.Run(ctx)
	<-ctx.Done()
}

// Kick has every waiting claim and volume tried at once, whatever its backoff: a
// share is back.
func (c *Controller) Kick() {
	c.claims.kick()
	c.volumes.kick()
}

// kicked is an informer that can tell its handlers that objects have changed when
// they have not. The library's queues can't be reached in any other way.
type kicked struct {
	cache.SharedIndexInformer
	waits   func(object any) bool // for a retry
	unsaved *unsaved

	mu       sync.Mutex
	handlers []cache.ResourceEventHandler
}

// AddEventHandlerWithResyncPeriod is what the library calls.
func (k *kicked) AddEventHandlerWithResyncPeriod(handler cache.ResourceEventHandler, period time.Duration) (cache.ResourceEventHandlerRegistration, error) {
	k.mu.Lock()
	k.handlers = append(k.handlers, handler)
	k.mu.Unlock()
	return k.SharedIndexInformer.AddEventHandlerWithResyncPeriod(handler, period)
}

// GetStore returns the cache for the library, which takes a volume out of it as soon
// as it has asked the API server to delete that. Another finalizer may hold the volume
// for long, and Caches must know of it until it is gone: only the watch removes it. The
// library adds each volume that it made, saved or not: one that is not would keep its
// claim from being looked at again.
func (k *kicked) GetStore() cache.Store {
	return undeleted{Store: k.SharedIndexInformer.GetStore(), unsaved: k.unsaved}
}

type undeleted struct {
	cache.Store
	unsaved *unsaved
}

func (undeleted) Delete(any) error { return nil }

func (u undeleted) Add(object any) error {
	if pv, ok := object.(*v1.PersistentVolume); ok && u.unsaved.has(pv.Name) {
		return nil
	}
	return u.Store.Add(object)
}

func (k *kicked) kick() {
	k.mu.Lock()
	handlers := append([]cache.ResourceEventHandler(nil), k.handlers...)
	k.mu.Unlock()
	for _, object := range k.GetStore().List() {
		if !k.waits(object) {
			continue
		}
		for _, handler := range handlers {
			handler.OnUpdate(object, object)
		}
	}
}

func claimWaits(object any) bool {
	claim, ok := object.(*v1.PersistentVolumeClaim)
	return ok && claim.Spec.VolumeName == ""
}

func volumeWaits(object any) bool {
	pv, ok := object.(*v1.PersistentVolume)
	return ok && pv.Status.Phase == v1.VolumeReleased
}
