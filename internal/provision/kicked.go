package provision

import (
	"context"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
)

// kicked is an informer as the controller of one provisioner's name sees it. Several
// see the same one. It shows each its own objects, and can tell its handlers that
// objects have changed when they have not: the library's queues can't be reached in
// any other way.
type kicked struct {
	cache.SharedIndexInformer
	mine    func(object any) bool // what this controller is told of
	waits   func(object any) bool // for a retry
	unsaved *unsaved              // of all names

	mu       sync.Mutex
	handlers []cache.ResourceEventHandler
}

// AddEventHandlerWithResyncPeriod is what the library calls.
func (k *kicked) AddEventHandlerWithResyncPeriod(handler cache.ResourceEventHandler, period time.Duration) (cache.ResourceEventHandlerRegistration, error) {
	handler = ofMine{handler, k.mine}
	k.mu.Lock()
	k.handlers = append(k.handlers, handler)
	k.mu.Unlock()
	return k.SharedIndexInformer.AddEventHandlerWithResyncPeriod(handler, period)
}

// AddIndexers adds those that no other controller has added: the library ends the
// program when one is there.
func (k *kicked) AddIndexers(indexers cache.Indexers) error {
	missing := cache.Indexers{}
	there := k.GetIndexer().GetIndexers()
	for name, index := range indexers {
		if there[name] == nil {
			missing[name] = index
		}
	}
	return k.SharedIndexInformer.AddIndexers(missing)
}

// GetStore returns the cache for the library, which adds each volume that it made, saved
// or not: one that is not would keep its claim from being looked at again. It also writes
// finalizers into the volumes that it gets, before it knows whether the API server takes
// them, and whether they are of its name: it gets copies.
func (k *kicked) GetStore() cache.Store {
	return guarded{Store: k.SharedIndexInformer.GetStore(), unsaved: k.unsaved}
}

type guarded struct {
	cache.Store
	unsaved *unsaved
}

func (g guarded) Add(object any) error {
	if pv, ok := object.(*v1.PersistentVolume); ok && g.unsaved.has(pv.Name) {
		return nil
	}
	return g.Store.Add(object)
}

func (g guarded) GetByKey(key string) (object any, exists bool, err error) {
	object, exists, err = g.Store.GetByKey(key)
	if pv, ok := object.(*v1.PersistentVolume); ok {
		object = pv.DeepCopy()
	}
	return object, exists, err
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

// ofMine tells a handler of some objects only, and of all that go.
type ofMine struct {
	cache.ResourceEventHandler
	mine func(object any) bool
}

func (h ofMine) OnAdd(object any, initial bool) {
	if h.mine(object) {
		h.ResourceEventHandler.OnAdd(object, initial)
	}
}

func (h ofMine) OnUpdate(before, object any) {
	if h.mine(object) {
		h.ResourceEventHandler.OnUpdate(before, object)
	}
}

// claimOf tells the claims that the controller manager wants from a provisioner, until
// they have the volumes that it made: of four changes of a claim the library need see one. It
// must see that a claim got another volume.
func claimOf(provisioner string) func(object any) bool {
	return func(object any) bool {
		claim, ok := object.(*v1.PersistentVolumeClaim)
		return ok && claim.Spec.VolumeName != volumePrefix+string(claim.UID) &&
			(claim.Annotations[annStorageProvisioner] == provisioner || claim.Annotations[annBetaStorageProvisioner] == provisioner)
	}
}

// volumeOf tells the volumes that a provisioner has made, or that were handed to it.
func volumeOf(provisioner string) func(object any) bool {
	return func(object any) bool {
		pv, ok := object.(*v1.PersistentVolume)
		return ok && (pv.Annotations[annProvisionedBy] == provisioner || pv.Annotations[annMigratedTo] == provisioner)
	}
}

// served tells those of some volumes that a provisioner serves, and for which there is
// something to do. The library would put its finalizer on others', too: where another
// provisioner of the name takes that off, to delete one, it would come back meanwhile.
func served(volumes func(object any) bool, provisioner *Provisioner) func(object any) bool {
	return func(object any) bool {
		pv, ok := object.(*v1.PersistentVolume)
		return ok && !rests(pv) && volumes(pv) && provisioner.ShouldDelete(context.Background(), pv)
	}
}

// rests reports whether the library would look at a volume and do nothing: it has its
// finalizer, rightly, and is not released.
func rests(pv *v1.PersistentVolume) bool {
	return pv.Status.Phase != v1.VolumeReleased && pv.Spec.PersistentVolumeReclaimPolicy == v1.PersistentVolumeReclaimDelete &&
		slices.Contains(pv.Finalizers, finalizer)
}

func claimWaits(object any) bool {
	claim, ok := object.(*v1.PersistentVolumeClaim)
	return ok && claim.Spec.VolumeName == ""
}

func volumeWaits(object any) bool {
	pv, ok := object.(*v1.PersistentVolume)
	return ok && pv.Status.Phase == v1.VolumeReleased
}

// The annotations by which the library tells whose a claim or volume is.
const (
	annStorageProvisioner     = "volume.kubernetes.io/storage-provisioner"
	annBetaStorageProvisioner = "volume.beta.kubernetes.io/storage-provisioner"
	annMigratedTo             = "pv.kubernetes.io/migrated-to"
)
