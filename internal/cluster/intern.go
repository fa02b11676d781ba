package cluster

import (
	"maps"
	"slices"
	"strconv"
	"sync"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// maxCommon bounds how many different values are kept for others to have in common.
	// Beyond it all are forgotten, and those that are used still live on in the objects.
	maxCommon = 1000
	// maxShared is the longest text that is worth it: what is longer, no two objects have.
	maxShared = 1024
)

// interner lets the objects of the caches have in common what is equal in them: ten
// thousand volumes of a class differ by little more than their names, and take half the
// memory then. What they have in common must not be changed, as nothing in a cache may be.
// It may be used concurrently.
type interner struct {
	mu     sync.Mutex
	common map[string]any
}

func newInterner() *interner { return &interner{common: map[string]any{}} }

// share gives an object, that nobody else has yet, what is known already of its parts. Nothing
// in it becomes another value.
func (s *interner) share(object any) {
	switch o := object.(type) {
	case *v1.PersistentVolume:
		s.meta(&o.ObjectMeta)
		spec := &o.Spec
		spec.Capacity = s.resources(spec.Capacity)
		spec.AccessModes, spec.MountOptions = list(s, spec.AccessModes), list(s, spec.MountOptions)
		spec.VolumeMode = pointer(s, spec.VolumeMode)
		text(s, &spec.StorageClassName)
		text(s, &spec.PersistentVolumeReclaimPolicy)
		text(s, &o.Status.Phase)
		if ref := spec.ClaimRef; ref != nil {
			text(s, &ref.Kind)
			text(s, &ref.APIVersion)
			text(s, &ref.Namespace)
		}
		if csi := spec.CSI; csi != nil {
			text(s, &csi.Driver)
			csi.VolumeAttributes = s.attributes(csi.VolumeAttributes)
		}
	case *v1.PersistentVolumeClaim:
		s.meta(&o.ObjectMeta)
		spec := &o.Spec
		spec.Resources.Requests, o.Status.Capacity = s.resources(spec.Resources.Requests), s.resources(o.Status.Capacity)
		spec.AccessModes, o.Status.AccessModes = list(s, spec.AccessModes), list(s, o.Status.AccessModes)
		spec.VolumeMode, spec.StorageClassName = pointer(s, spec.VolumeMode), pointer(s, spec.StorageClassName)
		text(s, &o.Status.Phase)
	}
}

func (s *interner) meta(meta *metav1.ObjectMeta) {
	text(s, &meta.Namespace)
	meta.Labels, meta.Annotations = s.texts(meta.Labels), s.texts(meta.Annotations)
	meta.Finalizers = list(s, meta.Finalizers)
}

// text gives a text that many have, once.
func text[T ~string](s *interner, t *T) {
	var room [described]byte
	*t = T(first(s, description(room[:0]).and("text").and(string(*t)), string(*t)))
}

// attributes does so with the texts of a volume's attributes, which are its own as a whole.
func (s *interner) attributes(of map[string]string) map[string]string {
	if of == nil {
		return nil
	}
	shared := make(map[string]string, len(of))
	for key, value := range of {
		text(s, &key)
		if key != "subDir" {
			text(s, &value)
		}
		shared[key] = value
	}
	return shared
}

func (s *interner) texts(of map[string]string) map[string]string {
	if of == nil {
		return nil
	}
	var room [described]byte
	parts := description(room[:0]).and("texts")
	for _, key := range slices.Sorted(maps.Keys(of)) {
		parts = parts.and(key).and(of[key])
	}
	return first(s, parts, of)
}

func (s *interner) resources(of v1.ResourceList) v1.ResourceList {
	if of == nil {
		return nil
	}
	var room [described]byte
	parts := description(room[:0]).and("resources")
	for _, name := range slices.Sorted(maps.Keys(of)) {
		quantity := of[name]
		parts = parts.and(string(name)).and(quantity.String()).and(string(quantity.Format))
	}
	return first(s, parts, of)
}

func list[T ~string](s *interner, of []T) []T {
	if of == nil {
		return nil
	}
	var room [described]byte
	parts := description(room[:0]).and("list")
	for _, t := range of {
		parts = parts.and(string(t))
	}
	return first(s, parts, of)
}

func pointer[T ~string](s *interner, to *T) *T {
	if to == nil {
		return nil
	}
	var room [described]byte
	return first(s, description(room[:0]).and("pointer").and(string(*to)), to)
}

// described is the room for most descriptions, which then take no memory of the heap.
const described = 512

// description is what makes two values equal: texts, none of which can be taken for two.
type description []byte

func (d description) and(part string) description {
	d = append(strconv.AppendInt(d, int64(len(part)), 10), ':')
	return append(d, part...)
}

// first returns the value that was the first to be described so.
func first[T any](s *interner, as description, value T) T {
	if len(as) > maxShared {
		return value
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, ok := s.common[string(as)].(T); ok {
		return known
	}
	if len(s.common) >= maxCommon {
		clear(s.common)
	}
	s.common[string(as)] = value
	return value
}
