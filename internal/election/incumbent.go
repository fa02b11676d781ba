package election

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
)

const (
	// longAgo is after how long without a renewal a lock is nobody's, whatever the
	// difference between two machines' clocks.
	longAgo = time.Hour
	// watchAtMost bounds how long a lock is watched; a holder that lives renews it
	// every 2 s, and has lost it after its lease duration, 15 s, without.
	watchAtMost = time.Minute
	// A pod that was started a moment ago waits for a lease duration before it takes over.
	watchLonger = 5 * time.Second // than two lease durations
)

// ErrIncumbent says that another program leads by a lock.
var ErrIncumbent = errors.New("is at work")

// Locks are the objects by which other provisioners elect their leaders.
type Locks struct {
	Namespace string // all namespaces when empty
	Names     []string
}

// CheckIncumbents returns an error if anybody leads by one of the locks: an Endpoints object, as provisioners used to have, or a Lease. A lock is
// live if it is renewed while it is watched, which takes as long as its holder may be
// silent and whoever waits for it may take; clocks don't have to agree. It matches
// ErrIncumbent then. Any other error means that it can't be told, perhaps not yet. The
// client needs the verb list for the objects of these names, and nothing else; every
// names how often it looks, 2 s when zero.
func CheckIncumbents(ctx context.Context, client kubernetes.Interface, every time.Duration, locks Locks) error {
	if every == 0 {
		every = 2 * time.Second
	}
	w := watched{client: client, locks: locks}
	until, err := w.look(ctx)
	for err == nil && time.Now().Before(until) {
		select {
		case <-time.After(every):
			_, err = w.look(ctx)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

// WatchIncumbents looks for such a leader until ctx ends, and returns an error that
// matches ErrIncumbent when there is one: somebody may start the old program later. It
// returns nil when ctx ends. What can't be told is looked at again. every is 15 s when zero.
func WatchIncumbents(ctx context.Context, client kubernetes.Interface, every time.Duration, locks Locks) error {
	if every == 0 {
		every = 15 * time.Second
	}
	w := watched{client: client, locks: locks}
	for blind := false; ; {
		_, err := w.look(ctx)
		if errors.Is(err, ErrIncumbent) {
			return err
		}
		if err != nil && ctx.Err() == nil && !blind {
			klog.ErrorS(err, "Can't tell whether an adopted provisioner is at work; will look again")
		}
		blind = err != nil
		select {
		case <-time.After(every):
		case <-ctx.Done():
			return nil
		}
	}
}

// watched are locks and what they said when they were looked at last.
type watched struct {
	client kubernetes.Interface
	locks  Locks
	before map[string]tenure
}

// look returns until when the locks must be watched to tell. It is an error if one has
// been renewed since the last look.
func (w *watched) look(ctx context.Context) (time.Time, error) {
	now, until, err := suspects(ctx, w.client, w.locks)
	if err != nil {
		return until, err
	}
	for where, after := range now {
		if before, known := w.before[where]; known && after != before {
			return until, fmt.Errorf("%s %w: it holds the %s", after.holder, ErrIncumbent, where)
		}
	}
	if w.before == nil {
		w.before = map[string]tenure{}
	}
	maps.Copy(w.before, now)
	return until, nil
}

// tenure is what a lock says of its holder.
type tenure struct{ holder, renewed string }

// suspects returns the locks that may be live, by where they are, and until when they
// must be watched to tell.
func suspects(ctx context.Context, client kubernetes.Interface, locks Locks) (map[string]tenure, time.Time, error) {
	found := map[string]tenure{}
	var until time.Time
	add := func(kind, namespace, name string, r resourcelock.LeaderElectionRecord) {
		if r.HolderIdentity == "" || time.Since(r.RenewTime.Time) > longAgo {
			return
		}
		found[fmt.Sprintf("%s %s in the namespace %s", kind, name, namespace)] = tenure{r.HolderIdentity, r.RenewTime.UTC().Format(time.RFC3339Nano)}
		watch := min(2*time.Duration(r.LeaseDurationSeconds)*time.Second+watchLonger, watchAtMost)
		if end := time.Now().Add(watch); end.After(until) {
			until = end
		}
	}
	for _, name := range locks.Names {
		if err := errors.Join(endpointsLocks(ctx, client, locks.Namespace, name, add), leaseLocks(ctx, client, locks.Namespace, name, add)); err != nil {
			return nil, until, err
		}
	}
	return found, until, nil
}

type addLock func(kind, namespace, name string, r resourcelock.LeaderElectionRecord)

func endpointsLocks(ctx context.Context, client kubernetes.Interface, namespace, name string, add addLock) error {
	list, err := client.CoreV1().Endpoints(namespace).List(ctx, called(name))
	if err != nil {
		return cantTell("endpoints", name, err)
	}
	for _, object := range list.Items {
		var r resourcelock.LeaderElectionRecord
		text := object.Annotations[resourcelock.LeaderElectionRecordAnnotationKey]
		if object.Name == name && json.Unmarshal([]byte(text), &r) == nil {
			add("Endpoints", object.Namespace, name, r)
		}
	}
	return nil
}

func leaseLocks(ctx context.Context, client kubernetes.Interface, namespace, name string, add addLock) error {
	list, err := client.CoordinationV1().Leases(namespace).List(ctx, called(name))
	if err != nil {
		return cantTell("leases", name, err)
	}
	for _, object := range list.Items {
		if object.Name == name {
			add("Lease", object.Namespace, name, *resourcelock.LeaseSpecToLeaderElectionRecord(&object.Spec))
		}
	}
	return nil
}

// called selects one name, so that RBAC can allow that one only.
func called(name string) metav1.ListOptions {
	return metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()}
}

func cantTell(resource, name string, err error) error {
	if apierrors.IsForbidden(err) {
		return fmt.Errorf("a role must allow to list %s with the resourceName %s, so that it is seen whether the old provisioner still works: %w", resource, name, err)
	}
	return fmt.Errorf("tell whether the old provisioner still works: %w", err)
}
