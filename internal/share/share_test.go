package share

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/nfsmount/fakemount"
	"sharevol.dev/sharevol/internal/volume"
)

var (
	ctx = context.Background()
	nfs = Ref{Share: volume.Share{Server: "nfs", Path: "/srv"}, MountOptions: []string{"nfsvers=4.2"}}
)

type fixture struct {
	*Manager
	mounter *fakemount.Mounter
	export  string // what the share nfs:/srv shows
}

func newFixture(t *testing.T) fixture {
	t.Helper()
	export := t.TempDir()
	mounter := &fakemount.Mounter{Exports: map[string]string{"nfs:/srv": export}}
	m := NewManager(Options{Mounter: mounter, Dir: t.TempDir(), Timeout: time.Second, Patience: 200 * time.Millisecond, MountRetry: time.Hour})
	t.Cleanup(func() {
		if err := m.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return fixture{Manager: m, mounter: mounter, export: export}
}

func (f fixture) path(elements ...string) string {
	return filepath.Join(append([]string{f.export}, elements...)...)
}

func mode(t *testing.T, path string) fs.FileMode {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// CVE-2026-3864 of csi-driver-nfs: a name that leaves the share never reaches the
// file system, whatever the caller let through.
func TestNoOtherNameReachesTheShare(t *testing.T) {
	f := newFixture(t)
	for _, name := range []volume.SubDir{"", ".", "..", "/", "a/b", "../x", ".sharevol", `a\b`} {
		for call, err := range map[string]error{"create": f.Create(ctx, nfs, name, 0o777), "remove": f.Remove(ctx, nfs, name)} {
			if !errors.Is(err, ErrUntouched) {
				t.Errorf("%s %q: %v", call, name, err)
			}
		}
	}
	if calls := f.mounter.Calls(); len(calls) > 0 {
		t.Errorf("mounted %v", calls)
	}
}

func TestMountsOnceAndUnmountsOnClose(t *testing.T) {
	f := newFixture(t)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { must(t, f.Create(ctx, nfs, "pvc-1", 0o777)) })
	}
	all.Wait()
	calls := f.mounter.Calls()
	if len(calls) != 1 {
		t.Fatalf("mounted %d times", len(calls))
	}
	if got := strings.Join(calls[0].Options, ","); got != "nfsvers=4.2,nosuid,nodev,noexec,soft,timeo=100,retrans=2" {
		t.Errorf("options %s", got)
	}
	must(t, f.Close(ctx))
	if layers, _ := f.mounter.Layers(calls[0].Target); len(layers) > 0 {
		t.Errorf("still mounted: %v", layers)
	}
	if _, err := os.Lstat(calls[0].Target); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("mount point left: %v", err)
	}
	if err := f.Create(ctx, nfs, "pvc-1", 0o777); !errors.Is(err, ErrUntouched) {
		t.Errorf("after close: %v", err)
	}
}

func TestAnUnmountableShareFailsFastAndAlone(t *testing.T) {
	f := newFixture(t)
	missing := Ref{Share: volume.Share{Server: "nfs", Path: "/missing"}}
	for range 3 {
		if err := f.Create(ctx, missing, "pvc-1", 0o777); !errors.Is(err, ErrUntouched) || !strings.Contains(err.Error(), "nfs:/missing") {
			t.Errorf("got %v", err)
		}
	}
	if calls := f.mounter.Calls(); len(calls) != 1 {
		t.Errorf("tried %d times within MountRetry", len(calls))
	}
	must(t, f.Create(ctx, nfs, "pvc-1", 0o777))
}

// One dead share holds its slots only: whoever finds none free goes on to others.
func TestAShareThatIsBeingMountedHoldsFewCallers(t *testing.T) {
	f := newFixture(t)
	f.options.Concurrency = 2
	f.mounter.Block = make(chan struct{})
	results := make(chan error, 8)
	for range cap(results) {
		go func() { results <- f.Create(ctx, nfs, "pvc-1", 0o777) }()
	}
	for range cap(results) - 2 {
		if err := <-results; !errors.Is(err, ErrUntouched) || !strings.Contains(err.Error(), "busy") {
			t.Errorf("got %v", err)
		}
	}
	close(f.mounter.Block)
	for range 2 {
		must(t, <-results)
	}
}

func TestRemovalsDoNotHoldCreationsUp(t *testing.T) {
	f := newFixture(t)
	f.options.Concurrency = 1
	s, err := f.share(nfs, "pvc-x")
	must(t, err)
	release, removal := make(chan struct{}), make(chan error, 1)
	go func() {
		removal <- s.do(ctx, s.removals, func(_ context.Context, _ int, progress func()) error {
			for {
				select {
				case <-release:
					return nil
				case <-time.After(time.Millisecond):
					progress()
				}
			}
		})
	}()
	for deadline := time.Now().Add(10 * time.Second); len(s.removals) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the removal does not begin")
		}
	}
	must(t, f.Create(ctx, nfs, "pvc-1", 0o777))
	close(release)
	must(t, <-removal)
}

// A definite refusal changed nothing: the claim must not be kept alive for it.
func TestDefiniteFailuresAreUntouched(t *testing.T) {
	f := newFixture(t)
	must(t, os.WriteFile(f.path("pvc-1"), nil, 0o600))
	if err := f.Create(ctx, nfs, "pvc-1", 0o777); !errors.Is(err, ErrUntouched) {
		t.Errorf("a file in its place: %v", err)
	}
	fd, err := unix.Open("/proc", openDirFlags, 0) // where nobody can make a directory
	must(t, err)
	defer func() { must(t, unix.Close(fd)) }()
	if err := createDir(fd, "pvc-1", 0o777); !errors.Is(err, ErrUntouched) {
		t.Errorf("refused by the file system: %v", err)
	}
}

// Whatever shows in the place of the share when it is opened, the next operation
// mounts anew.
func TestAShareThatCannotBeOpenedIsMountedAnew(t *testing.T) {
	f := newFixture(t)
	f.mounter.OpenErr = unix.ESTALE
	if err := f.Create(ctx, nfs, "pvc-1", 0o777); !errors.Is(err, unix.ESTALE) || !errors.Is(err, ErrUntouched) {
		t.Errorf("got %v", err)
	}
	f.mounter.OpenErr = nil
	must(t, f.Create(ctx, nfs, "pvc-1", 0o777))
	if calls := f.mounter.Calls(); len(calls) != 2 {
		t.Errorf("mounted %d times", len(calls))
	}
}

// An operation that was on its way when the manager closed mounts nothing.
func TestNothingIsMountedAfterClose(t *testing.T) {
	f := newFixture(t)
	s, err := f.share(nfs, "pvc-x")
	must(t, err)
	must(t, f.Close(ctx))
	if err := s.do(ctx, s.creations, nil); !errors.Is(err, ErrUntouched) {
		t.Errorf("got %v", err)
	}
	if calls := f.mounter.Calls(); len(calls) > 0 {
		t.Errorf("mounted %v", calls)
	}
}

// An operation that the kernel does not let go: the caller returns, the share is
// set aside, and it comes back when the operation ends.
func TestAStalledShareIsSetAsideUntilItAnswers(t *testing.T) {
	f := newFixture(t)
	must(t, f.Create(ctx, nfs, "pvc-1", 0o777))
	s, err := f.share(nfs, "pvc-x")
	must(t, err)
	release := make(chan struct{})
	err = s.do(ctx, s.creations, func(context.Context, int, func()) error { <-release; return nil })
	if !errors.Is(err, ErrNoAnswer) || errors.Is(err, ErrUntouched) {
		t.Fatalf("stalled: %v", err)
	}
	started := time.Now()
	if err := f.Create(ctx, nfs, "pvc-2", 0o777); !errors.Is(err, ErrNoAnswer) || !errors.Is(err, ErrUntouched) {
		t.Errorf("set aside: %v", err)
	}
	if waited := time.Since(started); waited > s.options.Timeout {
		t.Errorf("waited %v for a share that is set aside", waited)
	}
	close(release)
	for deadline := time.Now().Add(10 * time.Second); f.Create(ctx, nfs, "pvc-2", 0o777) != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not come back")
		}
	}
}

// A long work that progresses has no deadline as a whole.
func TestProgressKeepsAnOperationAlive(t *testing.T) {
	f := newFixture(t)
	s, err := f.share(nfs, "pvc-x")
	must(t, err)
	must(t, s.do(ctx, s.creations, func(_ context.Context, _ int, progress func()) error {
		for range 15 {
			time.Sleep(s.options.Timeout / 10)
			progress()
		}
		return nil
	}))
}

// ESTALE of something inside the share says nothing about its root.
func TestAStaleEntryKeepsTheMount(t *testing.T) {
	f := newFixture(t)
	s, err := f.share(nfs, "pvc-x")
	must(t, err)
	if err := s.do(ctx, s.creations, func(context.Context, int, func()) error { return unix.ESTALE }); !errors.Is(err, unix.ESTALE) {
		t.Fatalf("got %v", err)
	}
	must(t, f.Create(ctx, nfs, "pvc-1", 0o777))
	if calls := f.mounter.Calls(); len(calls) != 1 {
		t.Errorf("mounted %d times", len(calls))
	}
}

// Somebody unmounts the share below us: work goes on at the share, not in the
// local directory that shows then.
func TestTheOpenRootIsTheShare(t *testing.T) {
	f := newFixture(t)
	must(t, f.Create(ctx, nfs, "pvc-1", 0o777))
	must(t, f.mounter.Unmount(ctx, f.mounter.Calls()[0].Target))
	must(t, f.Create(ctx, nfs, "pvc-2", 0o777))
	if _, err := os.Stat(f.path("pvc-2")); err != nil {
		t.Error(err)
	}
}
