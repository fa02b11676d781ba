package helper_test

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/fence"
	"sharevol.dev/sharevol/internal/share/dirs"
	"sharevol.dev/sharevol/internal/share/helper"
	"sharevol.dev/sharevol/internal/share/helper/fakehelper"
)

// lease is a fence that a test moves.
type lease struct{ fence.Fence }

func (l *lease) renew(left time.Duration) { l.Follow(fence.BootTime() + left) }

func TestNoStepWithoutALease(t *testing.T) {
	held := &lease{}
	p, _ := open(t, helper.Options{Fence: &held.Fence})
	if _, err := p.Create(ctx, create("pvc-1")); !errors.Is(err, dirs.ErrFenced) || !errors.Is(err, dirs.ErrUntouched) {
		t.Errorf("before the first lease: %v", err)
	}
	held.renew(time.Minute)
	if _, err := p.Create(ctx, create("pvc-1")); err != nil {
		t.Error(err)
	}
	held.renew(-time.Millisecond)
	if _, err := p.Create(ctx, create("pvc-2")); !errors.Is(err, dirs.ErrFenced) || !errors.Is(err, dirs.ErrUntouched) {
		t.Errorf("after it ran out: %v", err)
	}
}

// A long removal goes on as long as the lease is renewed, and no longer.
func TestTheLeaseReachesARunningOperation(t *testing.T) {
	held := &lease{}
	held.renew(2500 * time.Millisecond)
	p, _ := open(t, helper.Options{Command: command("counting-helper"), Fence: &held.Fence})
	running := inBackground(func() error { return p.Delete(ctx, dirs.Target{}) })
	time.Sleep(time.Second)
	held.renew(3500 * time.Millisecond)
	select {
	case err := <-running:
		t.Fatalf("it was not told the new lease: %v", err)
	case <-time.After(2500 * time.Millisecond):
	}
	if err := <-running; err == nil || !strings.Contains(err.Error(), "ran out") || held.Until() > fence.BootTime() {
		t.Errorf("with %v left: %v", held.Until()-fence.BootTime(), err)
	}
}

// parent is a provisioner for the tests: it starts a helper that works, says its
// process id, and renews its lease until it is killed or frozen.
func parent() error {
	held := &lease{}
	held.renew(2 * time.Second)
	started, err := helper.Start(helper.Options{Command: command(os.Args[2]), Path: os.Args[3], Fence: &held.Fence})
	if err != nil {
		return err
	}
	p := process{started}
	if err := p.Open(ctx); err != nil {
		return err
	}
	if os.Args[2] == "counting-helper" {
		go func() { _ = p.Delete(ctx, dirs.Target{}) }()
	} else {
		go func() { _, _ = p.Create(ctx, create(fakehelper.HangingDir)) }()
	}
	if _, err := os.Stdout.WriteString(strconv.Itoa(p.PID()) + "\n"); err != nil {
		return err
	}
	for {
		time.Sleep(50 * time.Millisecond)
		held.renew(2 * time.Second)
	}
}

// startParent starts parent and returns its process id and its helper's.
func startParent(t *testing.T, helperArgument, share string) (parent *os.Process, helper int) {
	t.Helper()
	fakehelper.CheckLeaks(t)
	cmd := exec.Command("/proc/self/exe", "parent", helperArgument, share)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	must(t, err)
	helper, err = strconv.Atoi(strings.TrimSpace(line))
	must(t, err)
	// This program is the parent of orphans once it has started a helper; else this fails.
	t.Cleanup(func() { _, _ = unix.Wait4(helper, nil, 0, nil) })
	return cmd.Process, helper
}

// Whatever ended the provisioner, and whatever its helper is waiting for.
func TestAHelperEndsWithTheProvisioner(t *testing.T) {
	parent, pid := startParent(t, fakehelper.Command()[1], t.TempDir())
	time.Sleep(200 * time.Millisecond)
	if fakehelper.Gone(pid) {
		t.Fatal("it has ended before")
	}
	must(t, parent.Kill())
	eventually(t, "the helper ends", func() bool { return fakehelper.Gone(pid) })
}

// A provisioner that is frozen does not renew its lease; another leads then, and
// no helper of this one may go on.
func TestAHelperOfAFrozenProvisionerStops(t *testing.T) {
	share := t.TempDir()
	parent, pid := startParent(t, "counting-helper", share)
	eventually(t, "it works beyond the first lease", func() bool { return steps(share) > 250 })
	must(t, parent.Signal(unix.SIGSTOP))
	frozen := time.Now()
	last, lastAt := steps(share), time.Now()
	for time.Since(lastAt) < time.Second {
		if n := steps(share); n != last {
			last, lastAt = n, time.Now()
		}
		if time.Since(frozen) > 10*time.Second {
			t.Fatal("it works on")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if worked := lastAt.Sub(frozen); worked > 2200*time.Millisecond {
		t.Errorf("it worked on for %v with a lease of 2 s", worked)
	}
	if fakehelper.Gone(pid) {
		t.Error("it has ended: nothing was seen")
	}
	must(t, parent.Signal(unix.SIGCONT))
	must(t, parent.Kill())
	eventually(t, "the helper ends", func() bool { return fakehelper.Gone(pid) })
}
