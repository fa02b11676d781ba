package share

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/mount/fakemount"
	"sharevol.dev/sharevol/internal/share/dirs"
	"sharevol.dev/sharevol/internal/share/helper"
	"sharevol.dev/sharevol/internal/share/helper/fakehelper"
	"sharevol.dev/sharevol/internal/share/operation"
	"sharevol.dev/sharevol/internal/volume"
)

func TestMain(m *testing.M) {
	fakehelper.Main()
	os.Exit(m.Run())
}

var (
	ctx = context.Background()
	nfs = Ref{Share: volume.Share{Server: "nfs", Path: "/srv"}, MountOptions: []string{"nfsvers=4.2"}}
)

// fixture is a Manager with the share nfs. Its helpers are real processes, that
// fail on demand; see package fakehelper. What it mounts are local directories.
type fixture struct {
	*Manager
	mounter   *fakemount.Mounter
	export    string // what the share nfs shows
	starts    *atomic.Int32
	recovered chan struct{}
	events    *events
}

func newFixture(t *testing.T, change func(*Options)) fixture {
	t.Helper()
	fakehelper.CheckLeaks(t)
	f := fixture{export: t.TempDir(), starts: &atomic.Int32{}, recovered: make(chan struct{}, 100), events: &events{}}
	f.mounter = &fakemount.Mounter{Exports: map[string]string{nfs.Share.String(): f.export}}
	options := Options{
		Mounter: f.mounter, Dir: t.TempDir(),
		Timeout: time.Second, Patience: 200 * time.Millisecond, ProbeEvery: 20 * time.Millisecond,
		OnRecovery: func() { f.recovered <- struct{}{} },
		Observe:    f.events.observe,
		Start: func(options helper.Options) (Helper, error) {
			f.starts.Add(1)
			// A helper sees the mount; the fake's are seen only here.
			if options.NFS {
				options.Path, options.NFS = f.mounter.Shown(options.Path), false
			}
			options.Command = fakehelper.Command()
			return helper.Start(options)
		},
	}
	if change != nil {
		change(&options)
	}
	f.Manager = NewManager(options)
	t.Cleanup(func() {
		if err := f.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
		for _, call := range f.mounter.Calls() {
			if layers, _ := f.mounter.Layers(call.Target); len(layers) > 0 {
				t.Errorf("still mounted: %v", layers)
			}
		}
	})
	return f
}

// premounted is for newFixture: the share nfs is mounted already.
func premounted(path string) func(*Options) {
	return func(o *Options) { o.Premounted = map[volume.Share]string{nfs.Share: path} }
}

func (f fixture) path(elements ...string) string {
	return filepath.Join(append([]string{f.export}, elements...)...)
}

// The operations, by the names of package operation.

func (f fixture) Create(ctx context.Context, ref Ref, create dirs.Create) (dirs.Created, error) {
	return Do(ctx, f.Manager, ref, operation.Create, create)
}

func (f fixture) Delete(ctx context.Context, ref Ref, target dirs.Target) error {
	return errOf(Do(ctx, f.Manager, ref, operation.Delete, target))
}

func (f fixture) Describe(ctx context.Context, ref Ref) (dirs.Description, error) {
	return Do(ctx, f.Manager, ref, operation.Describe, operation.None{})
}

func (f fixture) create(ref Ref, dir volume.SubDir) error {
	_, err := f.Create(ctx, ref, creation(dir))
	return err
}

// state returns the state of the only share.
func (f fixture) state(t *testing.T) State {
	t.Helper()
	states := f.States()
	if len(states) != 1 {
		t.Fatalf("states %+v", states)
	}
	return states[0]
}

// hang makes the server stop answering, until the returned function is called.
func (f fixture) hang(t *testing.T) (answer func()) {
	t.Helper()
	must(t, unix.Mkfifo(f.path(fakehelper.Hang), 0o600))
	return func() { must(t, os.Remove(f.path(fakehelper.Hang))) }
}

func (f fixture) recovers(t *testing.T) {
	t.Helper()
	select {
	case <-f.recovered:
	case <-time.After(20 * time.Second):
		t.Fatal("it does not recover")
	}
}

// events are what a Manager has told Options.Observe.
type events struct {
	mu   sync.Mutex
	seen map[string]int
}

func (e *events) observe(_ volume.Share, operation string, err error, _ time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.seen == nil {
		e.seen = map[string]int{}
	}
	if err != nil {
		operation += " failed"
	}
	e.seen[operation]++
}

func (e *events) count(event string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.seen[event]
}

func creation(dir volume.SubDir) dirs.Create {
	return dirs.Create{SubDir: dir, Owner: owner(dir), Mode: 0o777, UID: -1, GID: -1}
}

func owner(dir volume.SubDir) dirs.Owner {
	return dirs.Owner{Cluster: "cluster", Volume: "pv-of-" + filepath.Base(string(dir))}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func there(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Lstat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}
