package share

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/fence"
	"sharevol.dev/sharevol/internal/share/dirs"
	"sharevol.dev/sharevol/internal/share/helper"
	"sharevol.dev/sharevol/internal/share/helper/fakehelper"
	"sharevol.dev/sharevol/internal/share/operation"
	"sharevol.dev/sharevol/internal/volume"
)

// A volume's life, through a real helper and the real directory work.
func TestAllOperations(t *testing.T) {
	f := newFixture(t, nil)
	targets := map[volume.SubDir]dirs.Target{}
	for _, dir := range []volume.SubDir{"a/deleted", "archived", "released", "dropped"} {
		created, err := f.Create(ctx, nfs, creation(dir))
		if err != nil || !created.Made || created.ShareID == "" || !there(t, f.path(string(dir))) {
			t.Fatalf("create %s: %+v, %v", dir, created, err)
		}
		targets[dir] = dirs.Target{SubDir: dir, Owner: owner(dir), ShareID: created.ShareID}
	}
	if records, err := Do(ctx, f, nfs, operation.Records, "cluster"); err != nil || len(records) != 4 {
		t.Errorf("records %v, %v", records, err)
	}
	must(t, f.Delete(ctx, nfs, targets["a/deleted"]))
	must(t, errOf(Do(ctx, f, nfs, operation.Release, targets["released"])))
	must(t, errOf(Do(ctx, f, nfs, operation.Drop, targets["dropped"])))
	name, err := Do(ctx, f, nfs, operation.Archive, targets["archived"])
	if err != nil || !there(t, f.path(name)) {
		t.Errorf("archived as %q, %v", name, err)
	}
	for dir, kept := range map[string]bool{"a": false, "archived": false, "released": true, "dropped": false} {
		if there(t, f.path(dir)) != kept {
			t.Errorf("%s is there: %v", dir, !kept)
		}
	}
	if records, err := Do(ctx, f, nfs, operation.Records, "cluster"); err != nil || len(records) != 0 {
		t.Errorf("records %v, %v", records, err)
	}
	if n := f.starts.Load(); n != 1 {
		t.Errorf("%d helpers", n)
	}
	for _, operation := range []string{"create", "delete", "release", "drop", "archive", "records", "mount"} {
		if f.events.count(operation) == 0 {
			t.Errorf("%s was not observed", operation)
		}
	}
}

// CVE-2026-3864 of csi-driver-nfs: a name that leaves the share reaches nothing,
// whatever the caller let through.
func TestNoOtherNameReachesTheShare(t *testing.T) {
	f := newFixture(t, nil)
	for _, dir := range []volume.SubDir{"", ".", "..", "/", "a//b", "../x", ".sharevol", `a\b`} {
		calls := map[string]error{
			"create": f.create(nfs, dir),
			"delete": f.Delete(ctx, nfs, dirs.Target{SubDir: dir, Owner: owner("x"), ShareID: "x"}),
		}
		for call, err := range calls {
			if !errors.Is(err, ErrUntouched) {
				t.Errorf("%s %q: %v", call, dir, err)
			}
		}
	}
	if entries, err := os.ReadDir(f.export); err != nil || len(entries) > 0 {
		t.Errorf("the share has %v, %v", entries, err)
	}
}

func TestMountsOnceAndUnmountsOnClose(t *testing.T) {
	f := newFixture(t, nil)
	var all sync.WaitGroup
	for range f.options.Concurrency { // more may have to wait too long
		all.Go(func() {
			if err := f.create(nfs, "pvc-1"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	calls := f.mounter.Calls()
	if len(calls) != 1 || f.starts.Load() != 1 {
		t.Fatalf("mounted %d times, %d helpers", len(calls), f.starts.Load())
	}
	if got := strings.Join(calls[0].Options, ","); got != "nfsvers=4.2,nosuid,nodev,noexec,soft,timeo=100,retrans=2,fg,retry=0" {
		t.Errorf("options %s", got)
	}
	if state := f.state(t); !state.Up || state.Share != nfs.Share || !slices.Equal(state.MountOptions, nfs.MountOptions) || state.PID == 0 {
		t.Errorf("state %+v", state)
	}
	must(t, f.Close(ctx))
	if layers, _ := f.mounter.Layers(calls[0].Target); len(layers) > 0 || there(t, calls[0].Target) {
		t.Errorf("left at the mount point: %v", layers)
	}
	if n := fakehelper.Children(t); n > 0 {
		t.Errorf("%d helpers left", n)
	}
	if err := f.create(nfs, "pvc-1"); !errors.Is(err, ErrUntouched) {
		t.Errorf("after close: %v", err)
	}
	must(t, f.Close(ctx))
}

func TestAnUnmountableShareFailsFastAndAlone(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.ProbeEvery = time.Hour })
	missing := Ref{Share: volume.Share{Server: "nfs", Path: "/missing"}}
	for range 3 {
		if err := f.create(missing, "pvc-1"); !errors.Is(err, ErrUntouched) || errors.Is(err, ErrNoAnswer) || !strings.Contains(err.Error(), "nfs:/missing") {
			t.Errorf("got %v", err)
		}
	}
	if calls := f.mounter.Calls(); len(calls) != 1 {
		t.Errorf("%d operations tried to mount", len(calls))
	}
	must(t, f.create(nfs, "pvc-1"))
}

// One dead share holds its slots only, however often it is mounted: whoever finds
// none free goes on to others.
func TestAShareThatIsBeingMountedHoldsFewCallers(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Concurrency = 2 })
	f.mounter.Block = make(chan struct{})
	results := make(chan error, 8)
	for i := range cap(results) {
		ref := nfs
		if i%2 == 0 {
			ref.MountOptions = []string{"hard"}
		}
		go func() { results <- f.create(ref, "pvc-1") }()
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

// steadily deletes a directory that takes for ever, and returns when it has begun.
func (f fixture) steadily(ctx context.Context, t *testing.T) <-chan error {
	t.Helper()
	done := make(chan error, 1)
	must(t, f.create(nfs, "pvc-0"))
	go func() { done <- f.Delete(ctx, nfs, dirs.Target{SubDir: fakehelper.SteadyDir}) }()
	eventually(t, "the removal begins", func() bool { return len(f.limiters[nfs.Share.Server].removals.tokens) == 1 })
	return done
}

func TestRemovalsDoNotHoldCreationsUp(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Concurrency = 1 })
	cancelled, cancel := context.WithCancel(ctx)
	removal := f.steadily(cancelled, t)
	must(t, f.create(nfs, "pvc-1"))
	if err := f.Delete(ctx, nfs, dirs.Target{SubDir: "pvc-1"}); !errors.Is(err, ErrUntouched) || !strings.Contains(err.Error(), "busy") {
		t.Errorf("beside it: %v", err)
	}
	cancel()
	if err := <-removal; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// A long work that progresses has no deadline as a whole, and no idle time.
func TestProgressKeepsAnOperationAlive(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Timeout, o.Idle = 1500*time.Millisecond, 100*time.Millisecond })
	cancelled, cancel := context.WithCancel(ctx)
	removal := f.steadily(cancelled, t)
	select {
	case err := <-removal:
		t.Errorf("it ended: %v", err)
	case <-time.After(4 * time.Second):
	}
	cancel()
	<-removal
}

// An idle share costs no process; its mount stays.
func TestAnIdleHelperEnds(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Idle = 100 * time.Millisecond })
	for range 2 {
		must(t, f.create(nfs, "pvc-1"))
		pid := f.state(t).PID
		if pid == 0 || fakehelper.Gone(pid) {
			t.Errorf("helper %d after an operation", pid)
		}
		eventually(t, "the helper ends", func() bool { return fakehelper.Gone(pid) })
		if state := f.state(t); !state.Up || state.PID != 0 {
			t.Errorf("state %+v", state)
		}
	}
	if n := len(f.mounter.Calls()); n != 1 {
		t.Errorf("mounted %d times", n)
	}
}

func TestPremountedShares(t *testing.T) {
	export := t.TempDir()
	f := newFixture(t, premounted(export))
	other := Ref{Share: nfs.Share, MountOptions: []string{"hard"}}
	must(t, f.create(nfs, "pvc-1"))
	must(t, f.create(other, "pvc-2"))
	if !there(t, export+"/pvc-2") || f.starts.Load() != 1 || len(f.mounter.Calls()) > 0 {
		t.Errorf("%d helpers, mounts %v", f.starts.Load(), f.mounter.Calls())
	}
	elsewhere := Ref{Share: volume.Share{Server: "nfs", Path: "/other"}}
	if err := f.create(elsewhere, "pvc-1"); !errors.Is(err, ErrUntouched) || !strings.Contains(err.Error(), "nfs:/srv") {
		t.Errorf("got %v", err)
	}
	if !f.Serves(nfs.Share) || f.Serves(elsewhere.Share) {
		t.Error("it says that it serves what it does not, or the other way round")
	}
	must(t, f.Close(ctx))
	if !there(t, export) {
		t.Error("the mount point was removed")
	}
}

// Another leader took over: no step, and no fault of the share.
func TestALeaseThatRanOutStopsAllSteps(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Fence = &fence.Fence{} })
	for range 2 {
		if err := f.create(nfs, "pvc-1"); !errors.Is(err, dirs.ErrFenced) || !errors.Is(err, ErrUntouched) {
			t.Errorf("got %v", err)
		}
	}
	if there(t, f.path("pvc-1")) || !f.state(t).Up {
		t.Errorf("state %+v", f.state(t))
	}
}

func TestAHelperThatCannotBeStartedIsNoFaultOfTheShare(t *testing.T) {
	f := newFixture(t, func(o *Options) {
		o.Start = func(helper.Options) (Helper, error) { return nil, unix.EAGAIN }
	})
	if err := f.create(nfs, "pvc-1"); !errors.Is(err, unix.EAGAIN) || !errors.Is(err, ErrUntouched) || !f.state(t).Up {
		t.Errorf("%v, state %+v", err, f.state(t))
	}
}

func TestReadOnlyMountsTakeNothingAndGiveNothing(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.ReadOnly = true })
	must(t, os.Mkdir(f.path("somebody's"), 0o700))
	ref := Ref{Share: nfs.Share, MountOptions: []string{"nfsvers=4.2", "rw"}}
	found, err := Do(ctx, f, ref, operation.Survey, dirs.Survey{Cluster: "cluster", Volumes: []volume.SubDir{"gone"}})
	must(t, err)
	if len(found.Orphans) != 1 || len(found.Missing) != 1 {
		t.Errorf("%+v", found)
	}
	description, err := f.Describe(ctx, ref)
	must(t, err)
	if description.Space.Bytes == 0 || description.ShareID != "" {
		t.Errorf("%+v", description)
	}
	if there(t, f.path(".sharevol")) {
		t.Error("made .sharevol")
	}
	// Of contradicting options the last one counts.
	if options := f.mounter.Calls()[0].Options; slices.Index(options, "ro") < slices.Index(options, "rw") {
		t.Errorf("mounted with %v", options)
	}
}

func TestSurveyOfADeadServerEnds(t *testing.T) {
	f := newFixture(t, nil)
	must(t, errOf(f.Describe(ctx, nfs)))
	defer f.hang(t)()
	if _, err := Do(ctx, f, nfs, operation.Survey, dirs.Survey{}); !errors.Is(err, ErrNoAnswer) {
		t.Error(err)
	}
	if _, err := f.Describe(ctx, nfs); !errors.Is(err, ErrUntouched) {
		t.Error(err)
	}
}

func errOf[T any](_ T, err error) error { return err }
