package provision

import (
	"context"
	"errors"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v8/controller"
)

// The pace of retries: a claim that fails is tried again after 1 s, then after
// twice as long each time, at most every 5 minutes, for ever; all of them together
// 100 times a second.
const (
	firstRetry  = time.Second
	lastRetry   = 5 * time.Minute
	retryRate   = 100
	retryBurst  = 1000
	resyncEvery = 15 * time.Minute
)

// Controller runs a Provisioner against an API server.
type Controller struct {
	controller *controller.ProvisionController
	informers  informers.SharedInformerFactory
	synced     []cache.InformerSynced
}

// NewController returns the controller that serves the claims of classes with
// the provisioner name driverName, with workers claims and as many deletions at a
// time. workers must be at least 1.
//
// The library's defaults that would hurt are replaced: it gives up after 15
// failures, removes the directory when the PersistentVolume can't be saved, and
// its leader election asks for a lock that client-go no longer has.
func NewController(client kubernetes.Interface, driverName string, provisioner controller.Provisioner, workers int) *Controller {
	factory := informers.NewSharedInformerFactory(client, resyncEvery)
	claims := factory.Core().V1().PersistentVolumeClaims().Informer()
	volumes := factory.Core().V1().PersistentVolumes().Informer()
	classes := factory.Storage().V1().StorageClasses().Informer()
	return &Controller{
		informers: factory,
		synced:    []cache.InformerSynced{claims.HasSynced, volumes.HasSynced, classes.HasSynced},
		controller: controller.NewProvisionController(client, driverName, provisioner,
			controller.LeaderElection(false),
			controller.AddFinalizer(true),
			controller.Threadiness(workers),
			controller.ClaimsInformer(claims),
			controller.VolumesInformer(volumes),
			controller.ClassesInformer(classes),
			controller.ResyncPeriod(resyncEvery),
			controller.RateLimiter(retryLimiter()),
			controller.CreateProvisionedPVLimiter(retryLimiter()),
			controller.FailedProvisionThreshold(0),
			controller.FailedDeleteThreshold(0),
		),
	}
}

func retryLimiter() workqueue.TypedRateLimiter[any] {
	return workqueue.NewTypedMaxOfRateLimiter(
		workqueue.NewTypedItemExponentialFailureRateLimiter[any](firstRetry, lastRetry),
		&workqueue.TypedBucketRateLimiter[any]{Limiter: rate.NewLimiter(retryRate, retryBurst)},
	)
}

// Run serves until ctx ends and returns at once then, while calls of the
// Provisioner may still run: Provisioner.Drain waits for them. (The library's own
// Run never returns; its goroutine ends with the process.)
func (c *Controller) Run(ctx context.Context) {
	c.informers.Start(ctx.Done())
	go c.controller.Run(ctx)
	<-ctx.Done()
}

// Ready returns an error until the caches are filled, before which no claim is served.
func (c *Controller) Ready(context.Context) error {
	for _, synced := range c.synced {
		if !synced() {
			return errors.New("waiting for the API server: the caches are not filled yet")
		}
	}
	return nil
}
