package servers

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"sharevol.dev/sharevol/internal/testbed/guest"
)

const (
	driver = "csi.sharevol.dev"
	// soon is for what a live server does, and recovered for what waits for one that
	// has come back.
	soon      = time.Minute
	recovered = 2 * time.Minute
)

// world is what all tests share: a control plane, and caches of what is in it.
type world struct {
	client  kubernetes.Interface
	claims  cache.Store
	volumes cache.Store
	servers atomic.Int32

	mu      sync.Mutex
	changed chan struct{} // closed at the next change of a claim, volume or event
	events  map[string][]string
}

func newWorld(ctx context.Context, cluster *guest.Cluster) (*world, error) {
	w := &world{client: cluster.Client(), changed: make(chan struct{}), events: map[string][]string{}}
	factory := informers.NewSharedInformerFactory(w.client, 0)
	core := factory.Core().V1()
	w.claims, w.volumes = core.PersistentVolumeClaims().Informer().GetStore(), core.PersistentVolumes().Informer().GetStore()
	for _, informer := range []cache.SharedIndexInformer{
		core.PersistentVolumeClaims().Informer(), core.PersistentVolumes().Informer(), core.Events().Informer(),
	} {
		if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    w.seen,
			UpdateFunc: func(_, now any) { w.seen(now) },
			DeleteFunc: func(any) { w.seen(nil) },
		}); err != nil {
			return nil, err
		}
	}
	factory.Start(ctx.Done())
	for kind, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return nil, fmt.Errorf("no cache of %v: %w", kind, context.Cause(ctx))
		}
	}
	return w, nil
}

// seen wakes those who wait. Of warnings it keeps each different text.
func (w *world) seen(object any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if event, ok := object.(*corev1.Event); ok && event.Type == corev1.EventTypeWarning {
		name := event.InvolvedObject.Name
		if !slices.Contains(w.events[name], event.Message) {
			w.events[name] = append(w.events[name], event.Message)
		}
	}
	close(w.changed)
	w.changed = make(chan struct{})
}

// warnings returns the texts of the warnings about a claim or a volume so far.
func (w *world) warnings(name string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.events[name])
}

// await waits until the caches are as done says; its state is for the error.
func (w *world) await(ctx context.Context, within time.Duration, what string, done func() (ok bool, state string)) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for start := time.Now(); ; {
		w.mu.Lock()
		changed := w.changed
		w.mu.Unlock()
		ok, state := done()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-time.After(time.Second): // for what no watch tells
		case <-ctx.Done():
			return fmt.Errorf("waited %s for %s: %s", time.Since(start).Round(time.Second), what, state)
		}
	}
}

// bound returns the names of the claims' volumes by claim, of those that are bound.
func (w *world) bound(claims []string) map[string]string {
	bound := map[string]string{}
	for _, name := range claims {
		object, found, _ := w.claims.GetByKey(metav1.NamespaceDefault + "/" + name)
		if !found {
			continue
		}
		if claim := object.(*corev1.PersistentVolumeClaim); claim.Status.Phase == corev1.ClaimBound {
			bound[name] = claim.Spec.VolumeName
		}
	}
	return bound
}

// left returns those of the volumes that still exist.
func (w *world) left(volumes []string) []string {
	return slices.DeleteFunc(slices.Clone(volumes), func(name string) bool {
		_, found, _ := w.volumes.GetByKey(name)
		return !found
	})
}

// allBound waits until the claims are bound and returns their volumes, in the same
// order.
func (w *world) allBound(ctx context.Context, within time.Duration, claims ...string) ([]string, error) {
	var bound map[string]string
	err := w.await(ctx, within, fmt.Sprintf("%d claims to be bound", len(claims)), func() (bool, string) {
		bound = w.bound(claims)
		pending := slices.DeleteFunc(slices.Clone(claims), func(name string) bool { return bound[name] != "" })
		return len(pending) == 0, w.state(pending)
	})
	volumes := make([]string, 0, len(claims))
	for _, claim := range claims {
		volumes = append(volumes, bound[claim])
	}
	return volumes, err
}

// allGone waits until the volumes are gone.
func (w *world) allGone(ctx context.Context, within time.Duration, volumes ...string) error {
	return w.await(ctx, within, fmt.Sprintf("%d volumes to be gone", len(volumes)), func() (bool, string) {
		left := w.left(volumes)
		return len(left) == 0, w.state(left)
	})
}

// state tells of claims or volumes what their warnings say.
func (w *world) state(names []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d are left", len(names))
	for _, name := range names[:min(len(names), 3)] {
		fmt.Fprintf(&b, "\n  %s: %q", name, w.warnings(name))
	}
	return b.String()
}

// warned waits until there is a warning about a claim or a volume that has all the
// words in it, and returns it.
func (w *world) warned(t *testing.T, name string, words ...string) string {
	t.Helper()
	var found string
	err := w.await(t.Context(), soon, fmt.Sprintf("a warning about %s with %q", name, words), func() (bool, string) {
		all := w.warnings(name)
		for _, found = range all {
			if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(found, word) }) {
				return true, ""
			}
		}
		return false, fmt.Sprintf("%q", all)
	})
	if err != nil {
		t.Error(err)
		return ""
	}
	t.Logf("%s: warning on %s: %s", uptime(), name, found)
	return found
}

// server starts one more NFS server for the time of the test.
func (w *world) server(t *testing.T) *guest.NFSServer {
	t.Helper()
	server, err := guest.StartNFSServer(t.Context(), int(w.servers.Add(1)))
	check(t, err)
	t.Cleanup(func() {
		if err := server.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return server
}

// class makes a StorageClass of a share of a server, changed by change, for the time of
// the test: a provisioner that starts later looks at the shares of all classes.
func (w *world) class(t *testing.T, name string, server *guest.NFSServer, share string, change func(*storagev1.StorageClass)) {
	t.Helper()
	class := &storagev1.StorageClass{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: driver,
		Parameters:   map[string]string{"server": server.Address, "share": share},
		MountOptions: []string{"nfsvers=4.2", "hard"},
	}
	if change != nil {
		change(class)
	}
	_, err := w.client.StorageV1().StorageClasses().Create(t.Context(), class, metav1.CreateOptions{})
	check(t, err)
	t.Cleanup(func() {
		err := w.client.StorageV1().StorageClasses().Delete(context.WithoutCancel(t.Context()), name, metav1.DeleteOptions{})
		if err != nil {
			t.Error(err)
		}
	})
}

// claim makes a claim of a class.
func (w *world) claim(ctx context.Context, name, class string) error {
	_, err := w.client.CoreV1().PersistentVolumeClaims(metav1.NamespaceDefault).Create(ctx, &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &class,
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany},
			Resources:        corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")}},
		},
	}, metav1.CreateOptions{})
	return err
}

// make makes claims of a class, and remove deletes them; neither waits for more.
func (w *world) make(t *testing.T, class string, names ...string) {
	t.Helper()
	var group errgroup.Group
	for _, name := range names {
		group.Go(func() error { return w.claim(t.Context(), name, class) })
	}
	check(t, group.Wait())
}

func (w *world) remove(t *testing.T, names ...string) {
	t.Helper()
	var group errgroup.Group
	for _, name := range names {
		group.Go(func() error { return w.delete(t.Context(), name) })
	}
	check(t, group.Wait())
}

func (w *world) delete(ctx context.Context, claim string) error {
	err := w.client.CoreV1().PersistentVolumeClaims(metav1.NamespaceDefault).Delete(ctx, claim, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// made makes claims of a class, waits until they are bound, and returns their
// volumes.
func (w *world) made(t *testing.T, class string, claims ...string) []string {
	t.Helper()
	w.make(t, class, claims...)
	volumes, err := w.allBound(t.Context(), soon, claims...)
	check(t, err)
	return volumes
}

// directory is where a volume's directory is below its share.
func (w *world) directory(t *testing.T, volume string) string {
	t.Helper()
	pv, err := w.client.CoreV1().PersistentVolumes().Get(t.Context(), volume, metav1.GetOptions{})
	check(t, err)
	return pv.Spec.CSI.VolumeAttributes["subDir"]
}

// fill puts n files into a volume's directory, on the server's side.
func fill(t *testing.T, dir string, n int) {
	t.Helper()
	for i := range n {
		check(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("file-%d", i)), nil, 0o644))
	}
}

func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Lstat(path)
	if err != nil && !os.IsNotExist(err) {
		t.Error(err)
	}
	return err == nil
}
