package cluster

import (
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
)

// The indices of the volume cache: by the place of a volume's data, by every place above
// that, and by share and its id. A place is a path, on whatever server: there are few of
// the same on others, and each index takes memory for each volume.
const (
	indexAt     = "at"
	indexWithin = "within"
	indexShare  = "share"
)

// keys are those of a volume in the indices.
type keys struct{ at, within, share []string }

// keysOf returns the keys of a volume: none, unless its data is on NFS.
func (c *Cluster) keysOf(pv *v1.PersistentVolume) (k keys) {
	d, ok := c.DirectoryOf(pv)
	if !ok {
		return keys{}
	}
	id := idOf(pv, d)
	for _, p := range places(d, id) {
		k.at, k.within = append(k.at, p.key()), append(k.within, p.above()...)
	}
	if id != "" {
		k.share = []string{shareKey(d.Share) + "#" + id}
	}
	return k
}

// located remembers the keys of the last two volumes: the cache asks for those of what a
// volume was and of what it is now, for one index after the other, which was a fourteenth of
// what the program does in a burst of claims. It may be used concurrently.
type located struct {
	of func(*v1.PersistentVolume) keys

	mu   sync.Mutex
	last [2]struct {
		pv   *v1.PersistentVolume
		keys keys
	}
}

func (l *located) keys(pv *v1.PersistentVolume) keys {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last[0].pv != pv {
		l.last[0], l.last[1] = l.last[1], l.last[0]
	}
	if l.last[0].pv != pv {
		l.last[0].pv, l.last[0].keys = pv, l.of(pv)
	}
	return l.last[0].keys
}

// index returns the function of the index whose keys pick picks.
func (l *located) index(pick func(keys) []string) cache.IndexFunc {
	return func(object any) ([]string, error) {
		if pv, ok := object.(*v1.PersistentVolume); ok {
			return pick(l.keys(pv)), nil
		}
		return nil, nil
	}
}
