package share

import (
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/share/dirs"
	"sharevol.dev/sharevol/internal/share/helper"
	"sharevol.dev/sharevol/internal/share/helper/fakehelper"
	"sharevol.dev/sharevol/internal/volume"
)

// A dead server: the callers return at the deadline, later ones at once, and the
// share comes back by itself.
func TestADeadShareIsSetAsideUntilItAnswers(t *testing.T) {
	for name, change := range map[string]func(*Options){"mounted": nil, "premounted": func(*Options) {}} {
		t.Run(name, func(t *testing.T) {
			export := t.TempDir()
			if change != nil {
				change = premounted(export)
			}
			f := newFixture(t, change)
			if change != nil {
				f.export = export
			}
			must(t, f.create(nfs, "pvc-1"))
			answer := f.hang(t)
			if err := f.create(nfs, "pvc-2"); !errors.Is(err, ErrNoAnswer) || errors.Is(err, ErrUntouched) || !strings.Contains(err.Error(), "nfs:/srv") {
				t.Errorf("the one that waited: %v", err)
			}
			for range 3 {
				started := time.Now()
				err := f.create(nfs, "pvc-2")
				if !errors.Is(err, ErrNoAnswer) || !errors.Is(err, ErrUntouched) || !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "unavailable since") {
					t.Errorf("unavailable: %v", err)
				}
				if waited := time.Since(started); waited > 200*time.Millisecond {
					t.Errorf("waited %v for a share that is unavailable", waited)
				}
			}
			state := f.state(t)
			if state.Up || time.Since(state.Since) > 20*time.Second {
				t.Errorf("state %+v", state)
			}
			eventually(t, "it is tried and still does not answer", func() bool { return f.events.count("probe failed") > 0 })
			if len(f.recovered) > 0 || fakehelper.Children(t) > 1 {
				t.Errorf("recovered: %d, %d helpers", len(f.recovered), fakehelper.Children(t))
			}
			answer()
			f.recovers(t)
			must(t, f.create(nfs, "pvc-2"))
			if state := f.state(t); !state.Up || len(f.recovered) > 0 {
				t.Errorf("state %+v, recovered %d times more", state, len(f.recovered))
			}
		})
	}
}

// One dead share does not slow another down.
func TestOthersWorkOn(t *testing.T) {
	f := newFixture(t, nil)
	other := Ref{Share: volume.Share{Server: "other", Path: "/srv"}}
	f.mounter.Export("other:/srv", t.TempDir())
	must(t, f.create(other, "pvc-0"))
	defer f.hang(t)()
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { _ = f.create(nfs, "pvc-1") })
	}
	started := time.Now()
	for _, dir := range []volume.SubDir{"a", "b", "c"} {
		must(t, f.create(other, dir))
	}
	if observe := time.Since(started); observe > 900*time.Millisecond {
		t.Errorf("took %v", observe)
	}
	all.Wait()
}

// A server that is not there when the first claim comes.
func TestAnUnmountableShareRecoversByItself(t *testing.T) {
	f := newFixture(t, nil)
	late := Ref{Share: volume.Share{Server: "nfs", Path: "/late"}}
	if err := f.create(late, "pvc-1"); !errors.Is(err, ErrUntouched) {
		t.Errorf("got %v", err)
	}
	eventually(t, "it is tried again", func() bool { return len(f.mounter.Calls()) > 2 })
	f.mounter.Export("nfs:/late", f.export)
	f.recovers(t)
	must(t, f.create(late, "pvc-1"))
}

// A helper that the kernel kills for want of memory, for example.
func TestACrashOfTheHelper(t *testing.T) {
	f := newFixture(t, nil)
	if err := f.create(nfs, fakehelper.CrashingDir); err == nil || errors.Is(err, ErrUntouched) || errors.Is(err, ErrNoAnswer) {
		t.Errorf("got %v", err)
	}
	must(t, f.create(nfs, "pvc-1"))
	must(t, unix.Kill(f.state(t).PID, unix.SIGKILL))
	eventually(t, "its end is seen", func() bool { return f.state(t).PID == 0 })
	must(t, f.create(nfs, "pvc-2"))
	if n := len(f.mounter.Calls()); n != 1 || f.starts.Load() != 3 {
		t.Errorf("mounted %d times, %d helpers", n, f.starts.Load())
	}
}

// ESTALE of something inside the share says nothing about its root.
func TestAStaleEntryKeepsTheHelper(t *testing.T) {
	f := newFixture(t, nil)
	if err := f.create(nfs, fakehelper.StaleDir); !errors.Is(err, unix.ESTALE) {
		t.Fatalf("got %v", err)
	}
	must(t, f.create(nfs, "pvc-1"))
	if n := len(f.mounter.Calls()); n != 1 || f.starts.Load() != 1 {
		t.Errorf("mounted %d times, %d helpers", n, f.starts.Load())
	}
}

// nfs-subdir #214: a stale handle of the root blocks nothing for longer than the
// operation that meets it.
func TestAStaleRootIsMountedAnew(t *testing.T) {
	f := newFixture(t, nil)
	must(t, f.create(nfs, "pvc-1"))
	// What the old mount shows from now on; a new one shows the export.
	stale := t.TempDir()
	must(t, os.WriteFile(stale+"/"+fakehelper.StaleMount, nil, 0o600))
	old := f.mounter.Calls()[0].Target
	s := f.shares[nfs.key()]
	start := s.options.Start
	s.options.Start = func(options helper.Options) (Helper, error) {
		if len(f.mounter.Calls()) == 1 && options.Path == old {
			options.Path, options.NFS = stale, false
		}
		return start(options)
	}
	must(t, os.WriteFile(f.path(fakehelper.Stale), nil, 0o600))
	if err := f.create(nfs, "pvc-2"); !errors.Is(err, unix.ESTALE) || !errors.Is(err, helper.ErrStale) {
		t.Errorf("got %v", err)
	}
	must(t, f.create(nfs, "pvc-2"))
	if n := len(f.mounter.Calls()); n != 2 {
		t.Errorf("mounted %d times", n)
	}
}

// The same where another mounts: nobody but it can help.
func TestAStalePremountedRoot(t *testing.T) {
	export := t.TempDir()
	f := newFixture(t, premounted(export))
	must(t, f.create(nfs, "pvc-1"))
	must(t, os.WriteFile(export+"/"+fakehelper.StaleMount, nil, 0o600))
	must(t, os.WriteFile(export+"/"+fakehelper.Stale, nil, 0o600))
	if err := f.create(nfs, "pvc-2"); !errors.Is(err, helper.ErrStale) {
		t.Errorf("got %v", err)
	}
	for range 2 {
		if err := f.create(nfs, "pvc-2"); !errors.Is(err, ErrUntouched) || !errors.Is(err, unix.ESTALE) || !strings.Contains(err.Error(), "new pod") {
			t.Errorf("got %v", err)
		}
	}
	must(t, os.Remove(export+"/"+fakehelper.StaleMount))
	f.recovers(t)
	must(t, f.create(nfs, "pvc-2"))
}

// A share that nobody wants any more, of a class that is gone for example, is
// left alone until somebody does.
func TestAShareThatNobodyWantsIsLeftAlone(t *testing.T) {
	f := newFixture(t, nil)
	late := Ref{Share: volume.Share{Server: "nfs", Path: "/late"}}
	_ = f.create(late, "pvc-1")
	s := f.shares[late.key()]
	eventually(t, "nobody tries it any more", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.asked = time.Now().Add(-2 * interest)
		return !s.probing
	})
	f.mounter.Export("nfs:/late", f.export)
	if err := f.create(late, "pvc-1"); !errors.Is(err, ErrUntouched) {
		t.Errorf("got %v", err)
	}
	f.recovers(t)
	must(t, f.create(late, "pvc-1"))
}

// Helpers die at any moment and the server hangs now and then: all calls return,
// the share always comes back, and nothing is left.
func TestTurmoil(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Timeout, o.Idle = 200*time.Millisecond, 50*time.Millisecond })
	stop := make(chan struct{})
	var all sync.WaitGroup
	for _, dir := range []volume.SubDir{"a", "b", "c", "d"} {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				created, err := f.Create(ctx, nfs, creation(dir))
				if err == nil {
					_ = f.Delete(ctx, nfs, dirs.Target{SubDir: dir, Owner: owner(dir), ShareID: created.ShareID})
				}
			}
		})
	}
	for i := range 40 {
		time.Sleep(25 * time.Millisecond)
		if pid := f.state(t).PID; pid != 0 && i%2 == 0 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		if i%10 == 5 {
			answer := f.hang(t)
			time.Sleep(300 * time.Millisecond)
			answer()
		}
	}
	close(stop)
	all.Wait()
	eventually(t, "it works", func() bool { return f.create(nfs, "end") == nil })
}
