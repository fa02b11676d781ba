package provision

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"sharevol.dev/sharevol/internal/volume"
)

// The indices of the volume cache: by the place of a volume's data, by every
// place above that, and by share and its id.
const (
	indexAt     = "at"
	indexWithin = "within"
	indexShare  = "share"
)

// Caches are the informers of all that the provisioner watches: volumes of every
// driver, claims and classes.
type Caches struct {
	factory                  informers.SharedInformerFactory
	adopted                  []volume.Adoption
	volumes, claims, classes cache.SharedIndexInformer
}

// NewCaches makes the informers; Start fills them. The shares of adopted provisioners
// are told by them alone.
func NewCaches(factory informers.SharedInformerFactory, adopted ...volume.Adoption) (*Caches, error) {
	c := &Caches{
		factory: factory,
		adopted: adopted,
		volumes: factory.Core().V1().PersistentVolumes().Informer(),
		claims:  factory.Core().V1().PersistentVolumeClaims().Informer(),
		classes: factory.Storage().V1().StorageClasses().Informer(),
	}
	return c, c.volumes.AddIndexers(cache.Indexers{
		indexAt:     c.volumeIndex(func(p place) []string { return []string{p.key()} }),
		indexWithin: c.volumeIndex(place.above),
		indexShare:  c.shareIndex,
	})
}

// Start fills the caches and follows the API server until ctx ends.
func (c *Caches) Start(ctx context.Context) { c.factory.Start(ctx.Done()) }

// Ready returns an error until the caches are filled, before which no claim is served.
func (c *Caches) Ready(context.Context) error {
	for _, informer := range []cache.SharedIndexInformer{c.volumes, c.claims, c.classes} {
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
		found = append(found, c.lookup(indexAt, p.key())...)
	}
	return found
}

// around returns the volumes whose data is at a place, above or below it.
func (c *Caches) around(d volume.Directory, shareID string) []*v1.PersistentVolume {
	found := c.at(d, shareID)
	for _, p := range places(d, shareID) {
		found = append(found, c.lookup(indexWithin, p.key())...)
		for _, key := range p.above() {
			found = append(found, c.lookup(indexAt, key)...)
		}
	}
	return found
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
	var id string
	var newest metav1.Time
	for _, key := range c.volumes.GetIndexer().ListIndexFuncValues(indexShare) {
		of, candidate, _ := strings.Cut(key, "#")
		if of != shareKey(s) {
			continue
		}
		for _, pv := range c.lookup(indexShare, key) {
			if id == "" || newest.Before(&pv.CreationTimestamp) {
				id, newest = candidate, pv.CreationTimestamp
			}
			if id == candidate {
				break // it is enough to know one of them where there is no other id
			}
		}
	}
	return id
}

// checkPlace returns an error if a volume other than name has its data where find
// looks for it. What the cache says is confirmed: it may hold volumes that were
// never saved or are gone.
func (p *Provisioner) checkPlace(ctx context.Context, d volume.Directory, shareID, name string, find func(volume.Directory, string) []*v1.PersistentVolume) error {
	seen := []string{name}
	for _, other := range find(d, shareID) {
		if slices.Contains(seen, other.Name) {
			continue
		}
		seen = append(seen, other.Name)
		live, err := p.options.Client.CoreV1().PersistentVolumes().Get(ctx, other.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			continue
		case err != nil:
			return fmt.Errorf("can't tell whether volume %s still uses %s: %w", other.Name, d.Source(), err)
		}
		theirs, _ := p.options.Caches.directoryOf(live)
		return fmt.Errorf("%s is in use by volume %s (%s), whose data is at %s", d.Source(), other.Name, live.Status.Phase, theirs.Source())
	}
	return nil
}

// place is where a volume's data is, in one of the two ways to tell: by server and
// path, or by the share's id and the path below its root.
type place struct{ share, path string }

func (p place) key() string { return p.share + ":" + p.path }

// above returns the keys of all places above p.
func (p place) above() []string {
	var keys []string
	for p.path != "/" {
		p.path = path.Dir(p.path)
		keys = append(keys, p.key())
	}
	return keys
}

func places(d volume.Directory, shareID string) []place {
	all := []place{{"server " + volume.CanonicalServer(d.Share.Server), d.Full()}}
	if shareID != "" {
		all = append(all, place{"id " + shareID, path.Join("/", string(d.SubDir))})
	}
	return all
}

// directoryOf returns where the data of a volume of any driver is, if it is on NFS.
func (c *Caches) directoryOf(pv *v1.PersistentVolume) (volume.Directory, bool) {
	switch {
	case pv.Spec.NFS != nil:
		for _, adoption := range c.adopted {
			if pv.Annotations[annProvisionedBy] != adoption.Name {
				continue
			}
			if d, err := adoption.Directory(pv.Spec.NFS.Server, pv.Spec.NFS.Path); err == nil {
				return d, true
			}
		}
		return volume.LocationFromAttributes(map[string]string{"server": pv.Spec.NFS.Server, "share": pv.Spec.NFS.Path})
	case pv.Spec.CSI != nil:
		if d, ok := volume.LocationFromAttributes(pv.Spec.CSI.VolumeAttributes); ok {
			return d, true
		}
		v, err := volume.ParseHandle(pv.Spec.CSI.VolumeHandle)
		return v.Directory, err == nil
	}
	return volume.Directory{}, false
}

func (c *Caches) volumeIndex(keys func(place) []string) cache.IndexFunc {
	return func(object any) ([]string, error) {
		pv, ok := object.(*v1.PersistentVolume)
		if !ok {
			return nil, nil
		}
		d, ok := c.directoryOf(pv)
		if !ok {
			return nil, nil
		}
		var all []string
		for _, p := range places(d, pv.Annotations[annShareID]) {
			all = append(all, keys(p)...)
		}
		return all, nil
	}
}

func shareKey(s volume.Share) string { return volume.CanonicalServer(s.Server) + ":" + s.Path }

func (c *Caches) shareIndex(object any) ([]string, error) {
	pv, ok := object.(*v1.PersistentVolume)
	if !ok || pv.Annotations[annShareID] == "" {
		return nil, nil
	}
	d, ok := c.directoryOf(pv)
	if !ok {
		return nil, nil
	}
	return []string{shareKey(d.Share) + "#" + pv.Annotations[annShareID]}, nil
}
