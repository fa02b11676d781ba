package nfsmount

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A daemon that mount(8) started, as rpc.statd is, becomes one while it is waited for.
func TestWhatLeavesTheGroupIsNotWaitedFor(t *testing.T) {
	f := newFixture(t, mountsWhatIsAsked+"\n(sleep 0.3; exec setsid sh -c 'echo $$ >'$info.pid'; exec sleep 600') >/dev/null 2>&1 &\nexit 0\n", umountsTheLast)
	f.Mounter = New(Options{MountInfo: f.info, MountTimeout: 20 * time.Second})
	if err := f.Mount(context.Background(), "nfs:/srv", f.target, nil); err != nil {
		t.Error(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if content, _ := os.ReadFile(f.info + ".pid"); len(content) > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("there is no daemon: this test says nothing")
		}
	}
	killWritten(t, f.info+".pid")
}

// The leader's zombie keeps the group's number from others, until all have ended and
// nothing is killed by it any more.
func TestAGroupKeepsItsNumberUntilAllHaveEnded(t *testing.T) {
	if err := adopt(); err != nil {
		t.Fatal(err)
	}
	written := filepath.Join(t.TempDir(), "pid")
	g := &group{leader: exec.Command("/bin/sh", "-c", "sleep 600 & echo $! >"+written+"; exit 3")}
	g.leader.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := g.leader.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- g.wait() }()
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(stat(t, g.number()), ") Z "); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the leader does not end")
		}
	}
	select {
	case err := <-done:
		t.Errorf("a process of the group is left, and wait returned %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	if !strings.Contains(stat(t, g.number()), ") Z ") {
		t.Error("the leader's number is free")
	}
	content, err := os.ReadFile(written)
	if err != nil {
		t.Fatal(err)
	}
	member, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil {
		t.Fatal(err)
	}
	if err := g.kill(syscall.Kill); err != nil {
		t.Error(err)
	}
	var exit *exec.ExitError
	if err := <-done; !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("got %v", err)
	}
	for _, pid := range []int{g.number(), member} {
		if left := stat(t, pid); left != "" {
			t.Errorf("left: %s", left)
		}
	}
	if err := g.kill(func(pid int, _ syscall.Signal) error { return fmt.Errorf("%d was killed", pid) }); err != nil {
		t.Error(err)
	}
}

// stat returns what the kernel says of a process, "" if there is none.
func stat(t *testing.T, pid int) string {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ESRCH) {
		t.Fatal(err)
	}
	return string(content)
}

// A plain umount(8) that does not end, while the program has only seconds left.
func TestUmountThatDoesNotDieLeavesTimeForDetaching(t *testing.T) {
	f := newFixture(t, "", `case "$*" in *-l*) `+umountsTheLast+`;; *) echo $$ >$info.pid; exec sleep 600;; esac`)
	f.Mounter = New(Options{MountInfo: f.info})
	f.runner.kill = func(int, syscall.Signal) error { return nil }
	write(t, f.info, entry(f.target, "nfs:/a"))
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
	defer cancel()
	if err := f.Unmount(ctx, f.target); err != nil || !strings.Contains(f.calls(t), "-l ") {
		t.Errorf("%v, calls:\n%s", err, f.calls(t))
	}
	if err := ctx.Err(); err != nil {
		t.Error("it took all of the time")
	}
	killWritten(t, f.info+".pid")
}

// One that is not detached either ends with its context.
func TestUnmountReturnsWithItsContext(t *testing.T) {
	f := newFixture(t, "", `echo $$ >$info.$$.pid; exec sleep 600`)
	f.Mounter = New(Options{MountInfo: f.info})
	f.runner.kill = func(int, syscall.Signal) error { return nil }
	write(t, f.info, entry(f.target, "nfs:/a"))
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	began := time.Now()
	if err := f.Unmount(ctx, f.target); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > 6*time.Second {
		t.Errorf("took %v", took)
	}
	pids, err := filepath.Glob(f.info + ".*.pid")
	if err != nil || len(pids) != 2 {
		t.Fatalf("%v, %v", pids, err)
	}
	for _, path := range pids {
		killWritten(t, path)
	}
}

// killWritten kills the process whose id is in a file.
func killWritten(t *testing.T, path string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
}
