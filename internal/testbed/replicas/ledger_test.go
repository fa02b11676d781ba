package replicas

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// marker is the file by which a volume's data is known again.
const marker = "marker"

// settleWithin is how long it may take until all claims are served and all that was deleted is gone.
const settleWithin = 2 * time.Minute

// entry is what a ledger knows of a claim.
type entry struct {
	name    string
	kind    kind
	uid     types.UID
	removed bool // its deletion was asked for
	marked  bool // it was bound, and data was written to its volume
}

// volume is the name of the PersistentVolume that the claim gets.
func (e *entry) volume() string { return "pvc-" + string(e.uid) }

// text is what the claim's marker says.
func (e *entry) text() string { return e.name + " " + e.volume() }

// ledger keeps account of all claims of a place, and writes data into each volume as soon as it is bound.
// Its methods may be called concurrently, but for look and what calls it.
type ledger struct {
	*place
	mu     sync.Mutex
	claims map[string]*entry // by name; none is used twice
}

func newLedger(p *place) *ledger { return &ledger{place: p, claims: map[string]*entry{}} }

func (l *ledger) dir(e *entry) string {
	return filepath.Join(l.share, e.kind.path(l.name, e.name, e.volume()))
}

// create makes a claim.
func (l *ledger) create(ctx context.Context, name string, k kind) error {
	claim, err := l.createClaim(ctx, name, k)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.claims[name] = &entry{name: name, kind: k, uid: claim.UID}
	return nil
}

// remove deletes a claim, whatever its state.
func (l *ledger) remove(ctx context.Context, name string) error {
	l.mu.Lock()
	l.claims[name].removed = true
	l.mu.Unlock()
	return l.client.CoreV1().PersistentVolumeClaims(l.name).Delete(ctx, name, metav1.DeleteOptions{})
}

// names returns the claims that were not removed.
func (l *ledger) names() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var names []string
	for name, e := range l.claims {
		if !e.removed {
			names = append(names, name)
		}
	}
	return names
}

// removeAll deletes all claims that are left, many at a time.
func (l *ledger) removeAll(ctx context.Context) error {
	return atOnce(ctx, l.names(), func(ctx context.Context, name string) error { return l.remove(ctx, name) })
}

// view is what the API server has of a place's claims and volumes.
type view struct {
	claims  map[string]*corev1.PersistentVolumeClaim
	volumes map[string]*corev1.PersistentVolume
	making  []string // claims that are to be bound and have no volume yet, or are not bound
	ending  []string // claims and volumes that are to go
}

func (v view) String() string {
	return fmt.Sprintf("%d to be bound %.5q, %d to go %.5q", len(v.making), v.making[:min(5, len(v.making))], len(v.ending), v.ending[:min(5, len(v.ending))])
}

// look asks the API server, and writes data into the volumes that were bound since the last look.
func (l *ledger) look(ctx context.Context) (view, error) {
	v := view{claims: map[string]*corev1.PersistentVolumeClaim{}, volumes: map[string]*corev1.PersistentVolume{}}
	l.mu.Lock()
	known := make([]*entry, 0, len(l.claims))
	for _, e := range l.claims { // those that are made while the lists are read are not looked for in them
		known = append(known, e)
	}
	l.mu.Unlock()
	claims, err := l.client.CoreV1().PersistentVolumeClaims(l.name).List(ctx, metav1.ListOptions{})
	if err != nil {
		return v, err
	}
	for i := range claims.Items {
		v.claims[claims.Items[i].Name] = &claims.Items[i]
	}
	volumes, err := l.client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return v, err
	}
	for i := range volumes.Items {
		if csi := volumes.Items[i].Spec.CSI; csi != nil && csi.Driver == l.driver() {
			v.volumes[volumes.Items[i].Name] = &volumes.Items[i]
		}
	}
	for _, e := range known {
		if err := l.sort(&v, e); err != nil {
			return v, err
		}
	}
	return v, nil
}

// sort says in v how far a claim has come.
func (l *ledger) sort(v *view, e *entry) error {
	l.mu.Lock()
	removed := e.removed
	l.mu.Unlock()
	claim, volume := v.claims[e.name], v.volumes[e.volume()]
	switch {
	case removed && claim != nil:
		v.ending = append(v.ending, e.name)
	case removed && volume != nil:
		v.ending = append(v.ending, volume.Name)
	case removed:
	case claim == nil:
		return fmt.Errorf("claim %s is gone, which nobody deleted", e.name)
	case claim.Status.Phase != corev1.ClaimBound || volume == nil:
		v.making = append(v.making, e.name)
	case !e.marked:
		return l.mark(e)
	}
	return nil
}

// mark writes data into the volume of a claim that was bound.
func (l *ledger) mark(e *entry) error {
	err := l.writeMarker(e)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil && e.removed && errors.Is(err, fs.ErrNotExist) {
		return nil // since it was looked at
	}
	e.marked = err == nil
	return err
}

func (l *ledger) writeMarker(e *entry) error {
	dir := l.dir(e)
	found, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("the volume of claim %s: %w", e.name, err)
	}
	if len(found) > 0 {
		return fmt.Errorf("the new volume of claim %s has %s in it", e.name, found[0].Name())
	}
	if err := os.WriteFile(filepath.Join(dir, marker), []byte(e.text()), 0o644); err != nil {
		return err
	}
	// One level at a time: a volume directory that goes meanwhile must not be made again here.
	for _, sub := range []string{"some", "some/more"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "some/more/data"), nil, 0o600)
}

// settle waits until every claim is bound and has its data, and all that was removed is gone. alive is asked
// all the while; its error ends the wait.
func (l *ledger) settle(ctx context.Context, alive func() error) error {
	return waitFor(ctx, "the claims of "+l.name, settleWithin, func(ctx context.Context) (bool, string, error) {
		v, err := l.look(ctx)
		if err != nil {
			return false, "", err
		}
		return len(v.making)+len(v.ending) == 0, v.String(), alive()
	})
}

// atOnce does something with many names, up to 50 at a time, until one fails.
func atOnce(ctx context.Context, names []string, do func(ctx context.Context, name string) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(50)
	for _, name := range names {
		group.Go(func() error { return do(ctx, name) })
	}
	return group.Wait()
}

// numbered returns count names.
func numbered(prefix string, count int) []string {
	names := make([]string, count)
	for i := range names {
		names[i] = fmt.Sprintf("%s-%d", prefix, i)
	}
	return names
}
