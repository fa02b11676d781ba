package node_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sharevol.dev/sharevol/internal/mount"
)

// stale publishes the volume, and has the server forget it.
func stale(t *testing.T) *fixture {
	f := newFixture(t)
	f.publish(t)
	f.statfs.Fail(f.target, unix.ESTALE)
	return f
}

func (f *fixture) trialsLeft(t *testing.T) []string {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(f.trials, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return left
}

// csi-driver-nfs #927: an existing mount gives ESTALE. It is replaced, after a trial.
func TestStaleMountIsReplaced(t *testing.T) {
	f := stale(t)
	f.publish(t)
	calls, unmounts := f.mounter.Calls(), f.mounter.Unmounts()
	if len(calls) != 3 || len(unmounts) != 2 {
		t.Fatalf("mounted %v, unmounted %v", calls, unmounts)
	}
	trial, anew := calls[1], calls[2]
	if filepath.Dir(filepath.Dir(trial.Target)) != f.trials || unmounts[0].Target != trial.Target {
		t.Errorf("the trial: %v, then %v", trial, unmounts[0])
	}
	if unmounts[1].Target != f.target || anew.Target != f.target || anew.Source != source {
		t.Errorf("the new mount: %v, then %v", unmounts[1], anew)
	}
	if left := f.trialsLeft(t); len(left) > 0 || f.mounted(t, f.target) != 1 {
		t.Errorf("left: %v", left)
	}
	if left := time.Until(trial.Deadline); left > 25*time.Second {
		t.Errorf("the trial has %s", left)
	}
}

// Without something better the stale mount stays: kubelet would not unpublish it, and a
// container that starts then would write to the node's disk (azurefile-csi-driver #3211).
func TestStaleMountStaysIfTheTrialFails(t *testing.T) {
	for name, err := range map[string]error{"missing": fs.ErrNotExist, "denied": fs.ErrPermission, "refused": errors.New("connection refused")} {
		t.Run(name, func(t *testing.T) {
			f := stale(t)
			f.mounter.Fail(source, err)
			if err := f.tryPublish(unchanged); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "stale") {
				t.Errorf("got %v", err)
			}
			for _, unmount := range f.mounter.Unmounts() {
				if unmount.Target == f.target {
					t.Error("it was unmounted")
				}
			}
			if left := f.trialsLeft(t); len(left) > 0 || f.mounted(t, f.target) != 1 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func TestStaleMountThatCantBeUnmounted(t *testing.T) {
	f := stale(t)
	f.mounter.Fail(f.target, errors.New("busy"))
	if err := f.tryPublish(unchanged); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v", err)
	}
	if f.mounted(t, f.target) != 1 || len(f.mounter.Calls()) != 2 {
		t.Errorf("mounted %v", f.mounter.Calls())
	}
}

// A process that was killed in a trial leaves its mount, which the next one takes away,
// and nothing else.
func TestTidy(t *testing.T) {
	f := newFixture(t)
	old, precious := filepath.Join(f.trials, "trial-OLD-1"), filepath.Join(f.trials, "trial-OLD-2")
	for _, dir := range []string{filepath.Join(old, "mount"), filepath.Join(precious, "mount"), filepath.Join(f.trials, "other")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	f.mounter.Put(filepath.Join(old, "mount"), mount.Layer{Source: source, FSType: "nfs4"})
	file := filepath.Join(precious, "mount", "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.server.Tidy(ctx); err == nil || !strings.Contains(err.Error(), precious) {
		t.Errorf("got %v", err)
	}
	if f.mounted(t, filepath.Join(old, "mount")) > 0 {
		t.Error("still mounted")
	}
	if _, err := os.Lstat(file); err != nil {
		t.Errorf("a file was removed: %v", err)
	}
	if left := f.trialsLeft(t); len(left) != 2 { // other and what has a file in it
		t.Errorf("left: %v", left)
	}
}

// It may run beside a trial of the same process.
func TestTidyLeavesTrialsOfItsOwnAlone(t *testing.T) {
	f := stale(t)
	f.mounter.AfterMount = func() {
		if err := f.server.Tidy(ctx); err != nil {
			t.Error(err)
		}
	}
	f.publish(t)
	if unmounts := f.mounter.Unmounts(); len(unmounts) != 2 {
		t.Errorf("unmounted %v", unmounts)
	}
}

// The server answers ESTALE only until its exports are loaded (a failover, exportfs -r). The
// mount lives again by the time that the trial has succeeded.
func TestStaleForAMoment(t *testing.T) {
	f := newFixture(t)
	f.publish(t)
	f.statfs.Fail(f.target, unix.ESTALE)
	f.mounter.AfterMount = func() { f.statfs.Fail(f.target, nil) } // the trial: the server has its exports again
	before := len(f.mounter.Unmounts())
	if err := f.tryPublish(unchanged); err != nil {
		t.Fatal(err)
	}
	for _, u := range f.mounter.Unmounts()[before:] {
		if u.Target == f.target {
			t.Error("a mount that answers again was taken from under its pod")
		}
	}
}

// What is below the stale mount may be in use: it is left alone, with an error.
func TestStaleOverAnotherMount(t *testing.T) {
	f := newFixture(t)
	f.mounter.Put(f.target, mount.Layer{Source: "other:/live", FSType: "nfs4", Device: "0:99"})
	f.mounter.Put(f.target, mount.Layer{Source: source, FSType: "nfs4", Device: "0:50"})
	f.statfs.Fail(f.target, unix.ESTALE)
	if err := f.tryPublish(unchanged); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "other:/live") {
		t.Errorf("got %v", err)
	}
	if n := f.mounted(t, f.target); n != 2 {
		t.Errorf("%d layers are left", n)
	}
}
