package provision

import (
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// outgoing are the volumes, by name, of whose deletion the controller library need not
// know all: those of all provisioners' names.
type outgoing struct {
	mu sync.Mutex
	// done are those whose directories are done with, as they were seen last.
	done map[string]*v1.PersistentVolume
	// hidden are those that are deleted, or just being, while the cache has them still.
	hidden map[string]types.UID
}

func newOutgoing() *outgoing {
	return &outgoing{done: map[string]*v1.PersistentVolume{}, hidden: map[string]types.UID{}}
}

// put notes that nothing is left to be done with the directory of a volume.
func (o *outgoing) put(pv *v1.PersistentVolume) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.done[pv.Name] = pv
}

// take returns the volume that was put, nil if there is none, and forgets it.
func (o *outgoing) take(name string) *v1.PersistentVolume {
	o.mu.Lock()
	defer o.mu.Unlock()
	pv := o.done[name]
	delete(o.done, name)
	return pv
}

func (o *outgoing) hide(name string, uid types.UID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hidden[name] = uid
}

func (o *outgoing) show(name string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.hidden, name)
}

func (o *outgoing) isHidden(pv *v1.PersistentVolume) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	uid, found := o.hidden[pv.Name]
	if found && uid != pv.UID {
		delete(o.hidden, pv.Name) // the cache knows of the end: there is another one
	}
	return found && uid == pv.UID
}

// forget is told of what has left a cache.
func (o *outgoing) forget(object any) {
	if last, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = last.Obj
	}
	if pv, ok := object.(*v1.PersistentVolume); ok && o.isHidden(pv) {
		o.show(pv.Name)
	}
}
