package check

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"

	"sharevol.dev/sharevol/internal/cluster"
	"sharevol.dev/sharevol/internal/mount/fakemount"
	"sharevol.dev/sharevol/internal/share"
	"sharevol.dev/sharevol/internal/share/dirs"
	"sharevol.dev/sharevol/internal/share/helper"
	"sharevol.dev/sharevol/internal/share/helper/fakehelper"
	"sharevol.dev/sharevol/internal/volume"
)

func TestMain(m *testing.M) {
	fakehelper.Main()
	os.Exit(m.Run())
}

const (
	driver    = "csi.sharevol.dev"
	clusterID = "8e1c5e3e-8b1f-4a7e-9d53-0a4a3a1f2b11"
)

var (
	ctx = context.Background()
	now = time.Date(2026, 8, 20, 12, 0, 0, 0, time.UTC)
)

// fixture is a cluster with NFS shares that are local directories. Its helpers are real
// processes, and what they say of space, ids and times is made the same each time.
type fixture struct {
	t       *testing.T
	objects []runtime.Object
	client  *fake.Clientset
	mounter *fakemount.Mounter
	options Options
	nfs     map[string]string // exports by source
	space   map[string]dirs.Space

	mu       sync.Mutex
	surveyed func(source string) // called after a share was looked through
	hangs    bool                // every server dies after it was asked what it is like
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	fakehelper.CheckLeaks(t)
	f := &fixture{t: t, nfs: map[string]string{}, mounter: &fakemount.Mounter{}, space: map[string]dirs.Space{}}
	f.add(&v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: metav1.NamespaceSystem, UID: clusterID}})
	f.options = Options{
		Names:  cluster.Names{Driver: driver, DefaultOnDelete: volume.Delete},
		Shares: true, Mounter: f.mounter, Dir: filepath.Join(t.TempDir(), "run"), Timeout: 5 * time.Second, // a busy machine takes more than one to start a helper
		SizeTime: time.Minute, Now: func() time.Time { return now }, Start: f.start,
		LookupHost: func(_ context.Context, host string) ([]string, error) {
			if host == "localhost" {
				host = "127.0.0.1"
			}
			return []string{host}, nil
		},
	}
	return f
}

func (f *fixture) add(objects ...runtime.Object) { f.objects = append(f.objects, objects...) }

// export makes a share and returns the directory that it is.
func (f *fixture) export(source string) string {
	f.t.Helper()
	dir := f.t.TempDir()
	f.nfs[source] = dir
	f.mounter.Export(source, dir)
	return dir
}

// run checks, and sees to it that nothing is left and nothing was changed.
func (f *fixture) run() *Report {
	f.t.Helper()
	report, err := f.runIn(ctx)
	must(f.t, err)
	return report
}

func (f *fixture) runIn(ctx context.Context) (*Report, error) {
	f.t.Helper()
	if f.client == nil {
		f.client = fake.NewClientset(f.objects...)
	}
	f.options.Client = f.client
	before := f.trees()
	report, err := Run(ctx, f.options)
	if after := f.trees(); after != before && !f.hangs {
		f.t.Errorf("changed on the shares:\n%s\nto\n%s", before, after)
	}
	for _, call := range f.mounter.Calls() {
		if layers, _ := f.mounter.Layers(call.Target); len(layers) > 0 {
			f.t.Errorf("still mounted: %v", layers)
		}
		// Of contradicting options the last one counts.
		if options := call.Options; !slices.Contains(options, "ro") || slices.Index(options, "ro") < slices.Index(options, "rw") {
			f.t.Errorf("mounted with %v", options)
		}
	}
	if _, err := os.Lstat(f.options.Dir); !os.IsNotExist(err) {
		f.t.Errorf("%s is left: %v", f.options.Dir, err)
	}
	allowed := map[string]bool{
		"get namespaces": true, "list storageclasses": true, "list persistentvolumes": true, "list persistentvolumeclaims": true, "get secrets": true,
	}
	for _, action := range f.client.Actions() {
		if what := action.GetVerb() + " " + action.GetResource().Resource; !allowed[what] {
			f.t.Errorf("asked the API server to %s", what)
		}
	}
	return report, err
}

// trees lists all that is on the shares.
func (f *fixture) trees() string {
	var all strings.Builder
	for source, dir := range f.nfs {
		must(f.t, filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := entry.Info()
			if err == nil {
				fmt.Fprintln(&all, source, path, info.Mode(), info.Size(), info.ModTime())
			}
			return err
		}))
	}
	lines := strings.Split(all.String(), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func (f *fixture) start(options helper.Options) (share.Helper, error) {
	if options.NFS { // the helper would see no mount of the fake's
		options.Path, options.NFS = f.mounter.Shown(options.Path), false
	}
	options.Command = fakehelper.Command()
	p, err := helper.Start(options)
	if err != nil {
		return nil, err
	}
	return fixed{Process: p, fixture: f, source: options.Name}, nil
}

// fixed is a helper whose figures are the same each time.
type fixed struct {
	*helper.Process
	fixture *fixture
	source  string
}

func (h fixed) Do(ctx context.Context, name string, arguments, result any) error {
	err := h.Process.Do(ctx, name, arguments, result)
	switch result := result.(type) {
	case *dirs.Description:
		h.describe(result)
		if h.fixture.hangs && err == nil {
			hang(h.fixture.t, h.fixture.nfs[h.source])
		}
	case *dirs.Surveyed:
		h.survey(result)
	}
	return err
}

func (h fixed) describe(d *dirs.Description) {
	d.Magic, d.MountOptions = 0x6969, "rw,vers=4.2,hard"
	d.Space = dirs.Space{Bytes: 100 << 30, FreeBytes: 60 << 30, Inodes: 1000, FreeInodes: 900}
	if space, set := h.fixture.space[h.source]; set {
		d.Space = space
	}
}

func (h fixed) survey(found *dirs.Surveyed) {
	for i := range found.Orphans {
		found.Orphans[i].Changed = now.Add(-50 * time.Hour)
	}
	for _, list := range [][]dirs.Kept{found.Archives, found.Trash} {
		for i := range list {
			list[i].Since = now.Add(-3 * time.Hour)
		}
	}
	h.fixture.mu.Lock()
	defer h.fixture.mu.Unlock()
	if h.fixture.surveyed != nil {
		h.fixture.surveyed(h.source)
	}
}

func class(name, server, path string, change func(*storagev1.StorageClass)) *storagev1.StorageClass {
	c := &storagev1.StorageClass{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: driver,
		Parameters: map[string]string{"server": server, "share": path}, MountOptions: []string{"nfsvers=4.2"},
	}
	if change != nil {
		change(c)
	}
	return c
}

func claim(name, uid string) *v1.PersistentVolumeClaim {
	return &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(uid)}}
}

// pv is a volume that sharevol made.
func pv(name, server, path, subDir, shareID string, change func(*v1.PersistentVolume)) *v1.PersistentVolume {
	v := volume.Volume{Directory: volume.Directory{Share: volume.Share{Server: server, Path: path}, SubDir: volume.SubDir(subDir)}, OnDelete: volume.Delete}
	pv := &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{
			"pv.kubernetes.io/provisioned-by": driver, "csi.sharevol.dev/share-id": shareID,
		}},
		Spec: v1.PersistentVolumeSpec{
			MountOptions: []string{"nfsvers=4.2"}, StorageClassName: "gold", PersistentVolumeReclaimPolicy: v1.PersistentVolumeReclaimDelete,
			ClaimRef: &v1.ObjectReference{Namespace: "default", Name: "claim-of-" + name},
			PersistentVolumeSource: v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{
				Driver: driver, VolumeHandle: v.Handle(name), VolumeAttributes: v.Attributes(),
			}},
		},
		Status: v1.PersistentVolumeStatus{Phase: v1.VolumeBound},
	}
	if change != nil {
		change(pv)
	}
	return pv
}

const shareID = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

// create makes volume directories as the provisioner does, on a share with the known id.
func create(t *testing.T, export, clusterUID string, volumes map[string]string) {
	t.Helper()
	if _, err := os.Lstat(filepath.Join(export, ".sharevol")); os.IsNotExist(err) {
		must(t, os.Mkdir(filepath.Join(export, ".sharevol"), 0o700))
		must(t, os.Symlink("id:"+shareID, filepath.Join(export, ".sharevol", "id")))
	}
	root, err := dirs.Open(export, dirs.Options{})
	must(t, err)
	defer func() { must(t, root.Close()) }()
	for name, subDir := range volumes {
		_, err := root.Create(ctx, dirs.Create{
			SubDir: volume.SubDir(subDir), Owner: dirs.Owner{Cluster: clusterUID, Volume: name}, ShareID: shareID, Mode: 0o755, UID: -1, GID: -1,
		})
		must(t, err)
	}
}

func write(t *testing.T, content string, path ...string) {
	t.Helper()
	name := filepath.Join(path...)
	must(t, os.MkdirAll(filepath.Dir(name), 0o755))
	must(t, os.WriteFile(name, []byte(content), 0o600))
}

func hang(t *testing.T, export string) {
	t.Helper()
	must(t, unix.Mkfifo(filepath.Join(export, fakehelper.Hang), 0o600))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
