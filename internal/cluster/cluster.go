// Package cluster knows the cluster: its classes, claims and PersistentVolumes, what
// these say of directories on shares, and which volumes have their data at, above or
// below a directory.
package cluster

import (
	"context"
	"errors"
	"net"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// Cluster watches volumes of every driver, claims and classes. Its methods may be called
// concurrently.
type Cluster struct {
	// Volumes, Claims and Classes are its informers. They are shared: nobody may change
	// what they have.
	Volumes, Claims, Classes cache.SharedIndexInformer
	// LookupHost asks the name service for the addresses of a server. It may be replaced
	// before Start.
	LookupHost func(ctx context.Context, host string) ([]string, error)

	client  kubernetes.Interface
	names   Names
	formats Formats
	servers *servers
}

// New returns a Cluster of what client serves; Start fills it.
func New(client kubernetes.Interface, names Names) (*Cluster, error) {
	c := &Cluster{LookupHost: net.DefaultResolver.LookupHost, client: client, names: names}
	c.servers = newServers(func(ctx context.Context, host string) ([]string, error) { return c.LookupHost(ctx, host) })
	c.formats = names.Formats(c.Class)
	core, transform, located := client.CoreV1(), newInterner().transform, &located{of: c.keysOf}
	var errs [3]error
	c.Volumes, errs[0] = newInformer(client, core.PersistentVolumes(), &v1.PersistentVolume{}, transform)
	c.Claims, errs[1] = newInformer(client, core.PersistentVolumeClaims(v1.NamespaceAll), &v1.PersistentVolumeClaim{}, transform)
	c.Classes, errs[2] = newInformer(client, client.StorageV1().StorageClasses(), &storagev1.StorageClass{}, transform)
	return c, errors.Join(append(errs[:], c.Volumes.AddIndexers(cache.Indexers{
		indexAt:     located.index(func(k keys) []string { return k.at }),
		indexWithin: located.index(func(k keys) []string { return k.within }),
		indexShare:  located.index(func(k keys) []string { return k.share }),
	}))...)
}

// Formats are those of all names that are served, the driver's first.
func (c *Cluster) Formats() Formats { return c.formats }

func (c *Cluster) all() []cache.SharedIndexInformer {
	return []cache.SharedIndexInformer{c.Volumes, c.Claims, c.Classes}
}

// transform takes out of an object who has set which of its fields: a third of
// what a volume takes in memory, and read by nobody here. Nothing else may go: the
// controller library sends objects of the caches back as updates, where a field that is
// not there is removed. managedFields are not: for an update without them the API
// server keeps those that it has.
func (in *interner) transform(object any) (any, error) {
	if meta, err := apimeta.Accessor(object); err == nil { // what is no object stays as it is
		meta.SetManagedFields(nil)
		in.share(object)
	}
	return object, nil
}

// Start fills the caches and follows the API server until ctx ends.
func (c *Cluster) Start(ctx context.Context) {
	for _, informer := range c.all() {
		go informer.RunWithContext(ctx)
	}
}

// Filled waits until the caches are filled, and returns false if ctx ends before.
func (c *Cluster) Filled(ctx context.Context) bool {
	return cache.WaitForCacheSync(ctx.Done(), c.Volumes.HasSynced, c.Claims.HasSynced, c.Classes.HasSynced)
}

// Ready returns an error until the caches are filled, before which no claim is served.
func (c *Cluster) Ready(context.Context) error {
	for _, informer := range c.all() {
		if !informer.HasSynced() {
			return errors.New("waiting for the API server: the caches are not filled yet")
		}
	}
	return nil
}

// ClassOf returns the class of a claim, nil if it is not known.
func (c *Cluster) ClassOf(claim *v1.PersistentVolumeClaim) *storagev1.StorageClass {
	name := claim.Annotations[v1.BetaStorageClassAnnotation]
	if name == "" && claim.Spec.StorageClassName != nil {
		name = *claim.Spec.StorageClassName
	}
	return c.Class(name)
}

// Class returns the class of that name, nil if it is not known.
func (c *Cluster) Class(name string) *storagev1.StorageClass {
	object, _, _ := c.Classes.GetStore().GetByKey(name)
	class, _ := object.(*storagev1.StorageClass)
	return class
}

// Volume returns the PersistentVolume of that name, nil if it is not known.
func (c *Cluster) Volume(name string) *v1.PersistentVolume {
	object, _, _ := c.Volumes.GetStore().GetByKey(name)
	pv, _ := object.(*v1.PersistentVolume)
	return pv
}

// HasVolume reports whether a PersistentVolume of that name is known.
func (c *Cluster) HasVolume(name string) bool { return c.Volume(name) != nil }

// AllVolumes returns all PersistentVolumes that are known.
func (c *Cluster) AllVolumes() []*v1.PersistentVolume {
	var all []*v1.PersistentVolume
	for _, object := range c.Volumes.GetStore().List() {
		if pv, ok := object.(*v1.PersistentVolume); ok {
			all = append(all, pv)
		}
	}
	return all
}

// ClassesOf returns the classes of a provisioner's name.
func (c *Cluster) ClassesOf(provisioner string) []*storagev1.StorageClass {
	var own []*storagev1.StorageClass
	for _, object := range c.Classes.GetStore().List() {
		if class, ok := object.(*storagev1.StorageClass); ok && class.Provisioner == provisioner {
			own = append(own, class)
		}
	}
	return own
}

// ClaimUIDs returns the UIDs of all claims that are known.
func (c *Cluster) ClaimUIDs() map[string]bool {
	uids := map[string]bool{}
	for _, object := range c.Claims.GetStore().List() {
		if claim, ok := object.(*v1.PersistentVolumeClaim); ok {
			uids[string(claim.UID)] = true
		}
	}
	return uids
}
