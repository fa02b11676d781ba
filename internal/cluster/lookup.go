package cluster

import (
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"

	"sharevol.dev/sharevol/internal/volume"
)

// at returns the volumes whose data is at a place of the share with the given id
// ("" if that is not known).
func (c *Cluster) at(d volume.Directory, shareID string) []*v1.PersistentVolume {
	var found []*v1.PersistentVolume
	for _, p := range places(d, shareID) {
		found = append(found, c.onServer(d, p, c.lookup(indexAt, p.key()))...)
	}
	return found
}

// around returns the volumes whose data is at a place, above or below it.
func (c *Cluster) around(d volume.Directory, shareID string) []*v1.PersistentVolume {
	var found []*v1.PersistentVolume
	for _, p := range places(d, shareID) {
		found = append(found, c.onServer(d, p, c.lookupAround(p))...)
	}
	return found
}

// aroundOnOthers returns the volumes on servers of other names whose paths are those
// of a place, above or below it: the server may be the same one.
func (c *Cluster) aroundOnOthers(d volume.Directory) []*v1.PersistentVolume {
	return slices.DeleteFunc(c.lookupAround(onAnyServer(d)), func(pv *v1.PersistentVolume) bool { return c.isOn(pv, d.Share.Server) })
}

// lookupAround returns the volumes at a place, above or below it.
func (c *Cluster) lookupAround(p place) []*v1.PersistentVolume {
	found := append(c.lookup(indexAt, p.key()), c.lookup(indexWithin, p.key())...)
	for _, key := range p.above() {
		found = append(found, c.lookup(indexAt, key)...)
	}
	return found
}

// onServer returns those of the volumes around p, which is a place of d, that are on the
// same share: where p is a path, whose server has the same name.
func (c *Cluster) onServer(d volume.Directory, p place, found []*v1.PersistentVolume) []*v1.PersistentVolume {
	if p != onAnyServer(d) {
		return found
	}
	return slices.DeleteFunc(found, func(pv *v1.PersistentVolume) bool { return !c.isOn(pv, d.Share.Server) })
}

func (c *Cluster) isOn(pv *v1.PersistentVolume, server string) bool {
	theirs, _ := c.DirectoryOf(pv)
	return volume.CanonicalServer(theirs.Share.Server) == volume.CanonicalServer(server)
}

func (c *Cluster) lookup(index, key string) []*v1.PersistentVolume {
	objects, _ := c.Volumes.GetIndexer().ByIndex(index, key) // fails only for an index that is not there
	var volumes []*v1.PersistentVolume
	for _, object := range objects {
		if pv, ok := object.(*v1.PersistentVolume); ok {
			volumes = append(volumes, pv)
		}
	}
	return volumes
}

// ShareID returns the id that a share had when the cluster's volumes on it were
// made, "" if there are none. Where they name several, the newest volume counts.
func (c *Cluster) ShareID(s volume.Share) string {
	var ids []string
	for _, key := range c.Volumes.GetIndexer().ListIndexFuncValues(indexShare) {
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

// SameShare reports whether two shares have one server's name and one path.
func SameShare(a, b volume.Share) bool { return shareKey(a) == shareKey(b) }

func shareKey(s volume.Share) string { return s.Canonical().String() }
