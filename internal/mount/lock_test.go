package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/process"
)

// asPlugin, in the environment, makes the test binary a plugin that mounts what it is
// told, and is killed meanwhile.
const asPlugin = "MOUNT_TEST_MOUNTS"

func TestMain(m *testing.M) {
	if target := os.Getenv(asPlugin); target != "" {
		_ = New(Options{MountInfo: os.Getenv(asPlugin + "_INFO"), Exclusive: true}).Mount(context.Background(), nfs("nfs:/srv"), target)
		os.Exit(1) // it should have been killed
	}
	if dir := os.Getenv(asMounter); dir != "" {
		switch err := changes(dir); {
		case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
			fmt.Println(err)
			os.Exit(mayNotMount)
		case err != nil:
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// exclusive returns a fixture as the node plugin has it.
func exclusive(t *testing.T, mount, umount string) fixture {
	f := newFixture(t, mount, umount)
	f.Mounter = New(Options{MountInfo: f.info, MountTimeout: time.Minute, UnmountTimeout: time.Second, Exclusive: true})
	return f
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

// The plugin is killed while mount(8) runs, which lives on and mounts a moment later.
// Its successor neither mounts a second time nor says that nothing is mounted.
func TestMountThatOutlivesItsProgram(t *testing.T) {
	waits := `while [ ! -e $info.go ]; do sleep 0.02; done; ` + mountsWhatIsAsked
	f := exclusive(t, waits, umountsTheLast)
	plugin := exec.Command(os.Args[0])
	plugin.Env = append(os.Environ(), asPlugin+"="+f.target, asPlugin+"_INFO="+f.info)
	if err := plugin.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the plugin does not mount", func() bool { return f.calls(t) != "" })
	if err := errors.Join(process.Check(), plugin.Process.Kill()); err != nil {
		t.Fatal(err)
	}
	_ = plugin.Wait() // killed

	ctx := context.Background()
	calls := map[string]func() error{
		"mount":   func() error { return f.Mount(ctx, nfs("nfs:/srv"), f.target) },
		"unmount": func() error { return f.Unmount(ctx, f.target) },
		"pending": func() error { return f.Pending(f.target) },
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, ErrPending) {
			t.Errorf("%s beside a mount(8) that runs on: %v", name, err)
		}
	}
	write(t, f.info+".go", "")
	eventually(t, "the mount(8) that ran on holds its lock for ever", func() bool { return f.Pending(f.target) == nil })
	if layers, err := f.Layers(f.target); err != nil || len(layers) != 1 {
		t.Errorf("layers %v, %v", layers, err)
	}
	if err := calls["mount"](); err == nil || errors.Is(err, ErrPending) {
		t.Errorf("mount on what the other one mounted: %v", err)
	}
	if err := calls["unmount"](); err != nil {
		t.Error(err)
	}
	if got := strings.Count(f.calls(t), "mount.nfs nfs:/srv"); got != 1 {
		t.Errorf("%d calls of mount(8)", got)
	}
}

// Only what mounts keeps others away, and only while it runs.
func TestLockIsInheritedByMountAlone(t *testing.T) {
	inherits := `[ -e /proc/$$/fd/3 ] && echo inherits >>$info.$(basename $0); `
	f := exclusive(t, inherits+mountsWhatIsAsked, inherits+umountsTheLast)
	for range 2 {
		if err := f.Mount(context.Background(), nfs("nfs:/srv"), f.target); err != nil {
			t.Fatal(err)
		}
		if err := f.Pending(f.target); err != nil {
			t.Error(err)
		}
		if err := f.Unmount(context.Background(), f.target); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(f.info + ".mount.nfs"); err != nil {
		t.Errorf("mount(8) has no lock: %v", err)
	}
	if _, err := os.Stat(f.info + ".umount"); err == nil {
		t.Error("umount(8) has the lock")
	}
}

// What a failed mount did is undone under the same lock, and then it is free.
func TestFailedMountFreesItsTarget(t *testing.T) {
	f := exclusive(t, mountsWhatIsAsked+"; exit 32", umountsTheLast)
	for range 2 {
		if err := f.Mount(context.Background(), nfs("nfs:/srv"), f.target); err == nil || errors.Is(err, ErrPending) {
			t.Errorf("got %v", err)
		}
	}
	if layers, err := f.Layers(f.target); err != nil || len(layers) > 0 {
		t.Errorf("layers %v, %v", layers, err)
	}
}

// A mount(8) of this process that does not end when it is killed holds the lock, too,
// until it has ended.
func TestMountThatSurvivesItsKillHoldsItsLock(t *testing.T) {
	f := exclusive(t, `exec sleep 1`, umountsTheLast)
	f.runner.end, f.runner.grace = immortal, 50*time.Millisecond
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := f.Mount(ctx, nfs("nfs:/srv"), f.target); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrPending) {
		t.Fatalf("got %v", err)
	}
	successor := New(Options{MountInfo: f.info, Exclusive: true})
	if err := successor.Pending(f.target); !errors.Is(err, ErrPending) {
		t.Errorf("got %v", err)
	}
	eventually(t, "the lock is held for ever", func() bool { return successor.Pending(f.target) == nil })
	eventually(t, "it counts as running for ever", func() bool { return f.Pending(f.target) == nil })
}
