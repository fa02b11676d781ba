package controller

import (
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"sharevol.dev/sharevol/internal/provision"
)

// filteredInformer is an informer as the controller of one provisioner's name sees it. Several
// see the same one. It shows each its own objects, and can tell its handlers that
// objects have changed when they have not: the library's queues can't be reached in
// any other way.
type filteredInformer struct {
	cache.SharedIndexInformer
	wants   func(object any) bool // what this controller sees
	waits   func(object any) bool // what waits for a retry
	unsaved *unsavedPVs           // of all names

	mu       sync.Mutex
	handlers []cache.ResourceEventHandler
}

// AddEventHandlerWithResyncPeriod is what the library calls.
func (f *filteredInformer) AddEventHandlerWithResyncPeriod(handler cache.ResourceEventHandler, period time.Duration) (cache.ResourceEventHandlerRegistration, error) {
	handler = filteredHandler{handler, f.wants}
	f.mu.Lock()
	f.handlers = append(f.handlers, handler)
	f.mu.Unlock()
	return f.SharedIndexInformer.AddEventHandlerWithResyncPeriod(handler, period)
}

// AddIndexers adds those that no other controller has added: the library ends the
// program when one is there.
func (f *filteredInformer) AddIndexers(indexers cache.Indexers) error {
	missing := cache.Indexers{}
	there := f.GetIndexer().GetIndexers()
	for name, index := range indexers {
		if there[name] == nil {
			missing[name] = index
		}
	}
	return f.SharedIndexInformer.AddIndexers(missing)
}

// GetStore returns the cache for the library, which adds each volume that it made, saved
// or not: one that is not would keep its claim from being looked at again. It also writes
// finalizers into the volumes that it gets, before it knows whether the API server takes
// them, and whether they are of its name: it gets copies.
func (f *filteredInformer) GetStore() cache.Store {
	return guardedStore{Store: f.SharedIndexInformer.GetStore(), unsaved: f.unsaved}
}

type guardedStore struct {
	cache.Store
	unsaved *unsavedPVs
}

func (g guardedStore) Add(object any) error {
	if pv, ok := object.(*v1.PersistentVolume); ok && g.unsaved.has(pv.Name) {
		return nil
	}
	return g.Store.Add(object)
}

func (g guardedStore) GetByKey(key string) (object any, exists bool, err error) {
	object, exists, err = g.Store.GetByKey(key)
	if pv, ok := object.(*v1.PersistentVolume); ok {
		object = pv.DeepCopy()
	}
	return object, exists, err
}

func (f *filteredInformer) retryAll() {
	f.mu.Lock()
	handlers := append([]cache.ResourceEventHandler(nil), f.handlers...)
	f.mu.Unlock()
	for _, object := range f.GetStore().List() {
		if !f.waits(object) {
			continue
		}
		for _, handler := range handlers {
			handler.OnUpdate(object, object)
		}
	}
}

// filteredHandler tells a handler of some objects only, and of all that go.
type filteredHandler struct {
	cache.ResourceEventHandler
	wants func(object any) bool
}

func (h filteredHandler) OnAdd(object any, initial bool) {
	if h.wants(object) {
		h.ResourceEventHandler.OnAdd(object, initial)
	}
}

func (h filteredHandler) OnUpdate(before, object any) {
	if h.wants(object) {
		h.ResourceEventHandler.OnUpdate(before, object)
	}
}

// claimOf tells the claims that the controller manager wants from a provisioner, until
// they have the volumes that it made: of four changes of a claim the library need see one. It
// must see that a claim got another volume.
func claimOf(provisioner string) func(object any) bool {
	return func(object any) bool {
		claim, ok := object.(*v1.PersistentVolumeClaim)
		return ok && claim.Spec.VolumeName != provision.VolumePrefix+string(claim.UID) &&
			(claim.Annotations[annStorageProvisioner] == provisioner || claim.Annotations[annBetaStorageProvisioner] == provisioner)
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

// The annotations by which the library tells whose a claim or volume is.
const (
	annStorageProvisioner     = "volume.kubernetes.io/storage-provisioner"
	annBetaStorageProvisioner = "volume.beta.kubernetes.io/storage-provisioner"
	annMigratedTo             = "pv.kubernetes.io/migrated-to"
)
