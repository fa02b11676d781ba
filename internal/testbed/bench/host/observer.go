package host

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"sharevol.dev/sharevol/internal/testbed/bench/follow"
)

// stage is how far a claim and its volume have come.
type stage string

const (
	made  stage = "PVs"   // the volume is there
	bound stage = "bound" // the claim is bound
	gone  stage = "gone"  // the volume was deleted and is gone
)

// observer watches the claims of the bench and their volumes, and notes when each came to each stage, as the
// API server tells everybody.
type observer struct {
	cancel context.CancelFunc
	ended  sync.WaitGroup

	mu      sync.Mutex
	seen    map[stage]map[string]time.Time // by the claim's name
	changed chan struct{}                  // closed at the next change
	err     error                          // why it sees no more
}

// observe begins to watch. The caller stops it.
func (l *lab) observe(ctx context.Context) (*observer, error) {
	one := metav1.ListOptions{Limit: 1} // for the version only
	claims, err := l.client.CoreV1().PersistentVolumeClaims(namespace).List(ctx, one)
	if err != nil {
		return nil, err
	}
	volumes, err := l.client.CoreV1().PersistentVolumes().List(ctx, one)
	if err != nil {
		return nil, err
	}
	o := &observer{seen: map[stage]map[string]time.Time{made: {}, bound: {}, gone: {}}, changed: make(chan struct{})}
	ctx, o.cancel = context.WithCancel(ctx)
	o.ended.Go(func() {
		o.end(follow.Watch(ctx, claims.ResourceVersion, l.client.CoreV1().PersistentVolumeClaims(namespace).Watch, nil, o.see))
	})
	o.ended.Go(func() {
		o.end(follow.Watch(ctx, volumes.ResourceVersion, l.client.CoreV1().PersistentVolumes().Watch, nil, o.see))
	})
	return o, nil
}

func (o *observer) stop() {
	o.cancel()
	o.ended.Wait()
}

func (o *observer) see(kind watch.EventType, object any) {
	now := time.Now()
	switch object := object.(type) {
	case *corev1.PersistentVolume:
		ref := object.Spec.ClaimRef
		switch {
		case ref == nil || ref.Namespace != namespace:
		case kind == watch.Deleted:
			o.note(gone, ref.Name, now)
		default:
			o.note(made, ref.Name, now)
		}
	case *corev1.PersistentVolumeClaim:
		if object.Status.Phase == corev1.ClaimBound {
			o.note(bound, object.Name, now)
		}
	}
}

// note notes a stage the first time that a claim is there.
func (o *observer) note(s stage, name string, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, again := o.seen[s][name]; !again {
		o.seen[s][name] = now
		o.tell()
	}
}

func (o *observer) end(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil && err != nil {
		o.err = err
		o.tell()
	}
}

// tell wakes up who waits. The caller holds mu.
func (o *observer) tell() {
	close(o.changed)
	o.changed = make(chan struct{})
}

// all waits until these claims have come to a stage, and returns when the last did.
func (o *observer) all(ctx context.Context, s stage, names []string) (last time.Time, err error) {
	for at := 0; ; {
		o.mu.Lock()
		for ; at < len(names); at++ {
			seen, there := o.seen[s][names[at]]
			if !there {
				break
			}
			if seen.After(last) {
				last = seen
			}
		}
		changed, err := o.changed, o.err
		o.mu.Unlock()
		if at == len(names) {
			return last, nil
		}
		if err != nil {
			return last, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return last, fmt.Errorf("%d of %d claims, the next %s, did not come to the stage %q: %w", len(names)-at, len(names), names[at], s, context.Cause(ctx))
		}
	}
}

// forget forgets all claims, whose names are not used again.
func (o *observer) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, names := range o.seen {
		clear(names)
	}
}
