package provision

import (
	"context"
	"errors"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"sharevol.dev/sharevol/internal/volume"
)

// Caches are the informers of all that the provisioner watches: volumes of every
// driver, claims and classes.
type Caches struct {
	adopted                  []volume.Adoption
	volumes, claims, classes cache.SharedIndexInformer
}

// NewCaches makes the informers of what client serves; Start fills them. The shares of
// adopted provisioners are told by them alone.
func NewCaches(client kubernetes.Interface, adopted ...volume.Adoption) (*Caches, error) {
	c := &Caches{adopted: adopted}
	core, transform, located := client.CoreV1(), newSharing().transform, &located{of: c.keysOf}
	var errs [3]error
	c.volumes, errs[0] = newInformer(client, core.PersistentVolumes(), &v1.PersistentVolume{}, transform)
	c.claims, errs[1] = newInformer(client, core.PersistentVolumeClaims(v1.NamespaceAll), &v1.PersistentVolumeClaim{}, transform)
	c.classes, errs[2] = newInformer(client, client.StorageV1().StorageClasses(), &storagev1.StorageClass{}, transform)
	return c, errors.Join(append(errs[:], c.volumes.AddIndexers(cache.Indexers{
		indexAt:     located.index(func(k keys) []string { return k.at }),
		indexWithin: located.index(func(k keys) []string { return k.within }),
		indexShare:  located.index(func(k keys) []string { return k.share }),
	}))...)
}

func (c *Caches) all() []cache.SharedIndexInformer {
	return []cache.SharedIndexInformer{c.volumes, c.claims, c.classes}
}

// transform takes out of an object who has set which of its fields: a third of
// what a volume takes in memory, and read by nobody here. Nothing else may go: the
// controller library sends objects of the caches back as updates, where a field that is
// not there is removed. managedFields are not: for an update without them the API
// server keeps those that it has.
func (s *sharing) transform(object any) (any, error) {
	if meta, err := apimeta.Accessor(object); err == nil { // what is no object stays as it is
		meta.SetManagedFields(nil)
		s.share(object)
	}
	return object, nil
}

// Start fills the caches and follows the API server until ctx ends.
func (c *Caches) Start(ctx context.Context) {
	for _, informer := range c.all() {
		go informer.RunWithContext(ctx)
	}
}

// Filled waits until the caches are filled, and returns false if ctx ends before.
func (c *Caches) Filled(ctx context.Context) bool {
	return cache.WaitForCacheSync(ctx.Done(), c.volumes.HasSynced, c.claims.HasSynced, c.classes.HasSynced)
}

// Ready returns an error until the caches are filled, before which no claim is served.
func (c *Caches) Ready(context.Context) error {
	for _, informer := range c.all() {
		if !informer.HasSynced() {
			return errors.New("waiting for the API server: the caches are not filled yet")
		}
	}
	return nil
}

// class returns the class of a claim, nil if it is not known.
func (c *Caches) class(claim *v1.PersistentVolumeClaim) *storagev1.StorageClass {
	name := claim.Annotations[v1.BetaStorageClassAnnotation]
	if name == "" && claim.Spec.StorageClassName != nil {
		name = *claim.Spec.StorageClassName
	}
	return c.classNamed(name)
}

// classNamed returns the class of that name, nil if it is not known.
func (c *Caches) classNamed(name string) *storagev1.StorageClass {
	object, _, _ := c.classes.GetStore().GetByKey(name)
	class, _ := object.(*storagev1.StorageClass)
	return class
}

// hasVolume reports whether a volume of that name is known.
func (c *Caches) hasVolume(name string) bool {
	_, exists, _ := c.volumes.GetStore().GetByKey(name)
	return exists
}

// ownClasses returns the classes of a provisioner.
func (c *Caches) ownClasses(provisioner string) []*storagev1.StorageClass {
	var own []*storagev1.StorageClass
	for _, object := range c.classes.GetStore().List() {
		if class, ok := object.(*storagev1.StorageClass); ok && class.Provisioner == provisioner {
			own = append(own, class)
		}
	}
	return own
}

// claimUIDs returns the UIDs of all claims.
func (c *Caches) claimUIDs() map[string]bool {
	uids := map[string]bool{}
	for _, object := range c.claims.GetStore().List() {
		if claim, ok := object.(*v1.PersistentVolumeClaim); ok {
			uids[string(claim.UID)] = true
		}
	}
	return uids
}

// at returns the volumes whose data is at a place of the share with the given id
// ("" if that is not known).
func (c *Caches) at(d volume.Directory, shareID string) []*v1.PersistentVolume {
	var found []*v1.PersistentVolume
	for _, p := range places(d, shareID) {
		found = append(found, c.onServer(d, p, c.lookup(indexAt, p.key()))...)
	}
	return found
}

// around returns the volumes whose data is at a place, above or below it.
func (c *Caches) around(d volume.Directory, shareID string) []*v1.PersistentVolume {
	var found []*v1.PersistentVolume
	for _, p := range places(d, shareID) {
		found = append(found, c.onServer(d, p, c.lookupAround(p))...)
	}
	return found
}

// aroundOnOthers returns the volumes on servers of other names whose paths are those
// of a place, above or below it: the server may be the same one.
func (c *Caches) aroundOnOthers(d volume.Directory) []*v1.PersistentVolume {
	return slices.DeleteFunc(c.lookupAround(onAnyServer(d)), func(pv *v1.PersistentVolume) bool { return c.isOn(pv, d.Share.Server) })
}

// lookupAround returns the volumes at a place, above or below it.
func (c *Caches) lookupAround(p place) []*v1.PersistentVolume {
	found := append(c.lookup(indexAt, p.key()), c.lookup(indexWithin, p.key())...)
	for _, key := range p.above() {
		found = append(found, c.lookup(indexAt, key)...)
	}
	return found
}

// onServer returns those of the volumes around p, which is a place of d, that are on the
// same share: where p is a path, whose server has the same name.
func (c *Caches) onServer(d volume.Directory, p place, found []*v1.PersistentVolume) []*v1.PersistentVolume {
	if p != onAnyServer(d) {
		return found
	}
	return slices.DeleteFunc(found, func(pv *v1.PersistentVolume) bool { return !c.isOn(pv, d.Share.Server) })
}

func (c *Caches) isOn(pv *v1.PersistentVolume, server string) bool {
	theirs, _ := c.directoryOf(pv)
	return volume.CanonicalServer(theirs.Share.Server) == volume.CanonicalServer(server)
}

func (c *Caches) lookup(index, key string) []*v1.PersistentVolume {
	objects, _ := c.volumes.GetIndexer().ByIndex(index, key) // fails only for an index that is not there
	var volumes []*v1.PersistentVolume
	for _, object := range objects {
		if pv, ok := object.(*v1.PersistentVolume); ok {
			volumes = append(volumes, pv)
		}
	}
	return volumes
}

// shareID returns the id that a share had when the cluster's volumes on it were
// made, "" if there are none. Where they name several, the newest volume counts.
func (c *Caches) shareID(s volume.Share) string {
	var ids []string
	for _, key := range c.volumes.GetIndexer().ListIndexFuncValues(indexShare) {
		if of, id, _ := strings.Cut(key, "#"); of == shareKey(s) {
			ids = append(ids, id)
		}
	}
	switch len(ids) {
	case 0:
		return ""
	case 1: // as nearly always: a look at all volumes of the share, for each claim, is too much
		return ids[0]
	}
	var newest *v1.PersistentVolume
	var its string
	for _, id := range ids {
		for _, pv := range c.lookup(indexShare, shareKey(s)+"#"+id) {
			if newest == nil || newest.CreationTimestamp.Before(&pv.CreationTimestamp) {
				newest, its = pv, id
			}
		}
	}
	return its
}

func shareKey(s volume.Share) string { return s.Canonical().String() }
