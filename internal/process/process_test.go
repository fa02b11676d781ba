package process

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

func start(t *testing.T, script string) *Process {
	t.Helper()
	p, err := Start(exec.Command("/bin/sh", "-c", script))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.End(context.Background(), time.Minute); err != nil {
			t.Error(err)
		}
	})
	return p
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

// written waits for the number that a process writes to a file.
func written(t *testing.T, path string) int {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		content, _ := os.ReadFile(path)
		if pid, err := strconv.Atoi(strings.TrimSpace(string(content))); err == nil {
			return pid
		}
		if time.Now().After(deadline) {
			t.Fatalf("nothing was written to %s: this test says nothing", path)
		}
	}
}

func TestHowALeaderEnded(t *testing.T) {
	if err := start(t, "exit 0").Err(); err != nil {
		t.Error(err)
	}
	var exit *exec.ExitError
	if err := start(t, "exit 3").Err(); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("got %v", err)
	}
	if p, err := Start(exec.Command("/nonexistent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("started %v, %v", p, err)
	}
}

// The leader's zombie keeps the group's number from others, until all have ended. Then
// nothing is killed by it any more.
func TestAGroupKeepsItsNumberUntilAllHaveEnded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	p := start(t, "sleep 600 & echo $! >"+path+"; exit 3")
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(stat(t, p.PID()), ") Z "); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the leader does not end")
		}
	}
	if p.Ended(context.Background(), 200*time.Millisecond) {
		t.Error("a process of the group is left, and Done is closed")
	}
	if !strings.Contains(stat(t, p.PID()), ") Z ") {
		t.Error("the leader's number is free")
	}
	member := written(t, path)
	if err := p.End(context.Background(), time.Minute); err != nil {
		t.Error(err)
	}
	var exit *exec.ExitError
	if err := p.Err(); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("got %v", err)
	}
	for _, pid := range []int{p.PID(), member} { // not even as zombies
		if left := stat(t, pid); left != "" {
			t.Errorf("left: %s", left)
		}
	}
	if err := p.kill(func(pid int, _ syscall.Signal) error { return fmt.Errorf("%d was killed", pid) }); err != nil {
		t.Error(err)
	}
}

func TestEndKillsTheWholeGroup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	p := start(t, "trap '' TERM; (trap '' TERM; sleep 600) & echo $! >"+path+"; wait")
	member := written(t, path)
	if err := p.End(context.Background(), time.Minute); err != nil {
		t.Fatal(err)
	}
	for _, pid := range []int{p.PID(), member} {
		if left := stat(t, pid); left != "" {
			t.Errorf("left: %s", left)
		}
	}
}

// What leaves the group, as a daemon does, is neither waited for nor killed.
func TestADaemonIsNotWaitedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	p := start(t, "setsid sh -c 'echo $$ >"+path+"; exec sleep 600' & while [ ! -s "+path+" ]; do sleep 0.01; done")
	if !p.Ended(context.Background(), time.Minute) {
		t.Error("it is waited for")
	}
	daemon := written(t, path)
	if state := stat(t, daemon); state == "" || strings.Contains(state, ") Z ") {
		t.Errorf("it has ended: %s", state)
	}
	if err := syscall.Kill(daemon, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
}

// Waiting ends with the time that it may take, and with its context.
func TestWaitingHasAnEnd(t *testing.T) {
	p := start(t, "exec sleep 600")
	over, cancel := context.WithCancel(context.Background())
	cancel()
	started := time.Now()
	if p.Ended(context.Background(), 50*time.Millisecond) || p.Ended(over, time.Hour) {
		t.Error("it has ended")
	}
	if took := time.Since(started); took < 50*time.Millisecond || took > 10*time.Second {
		t.Errorf("after %v", took)
	}
	// Killed, but nobody has time to see it.
	if err := p.End(over, time.Hour); err != nil && !errors.Is(err, ErrAlive) {
		t.Errorf("got %v", err)
	}
	if !p.Ended(context.Background(), time.Minute) {
		t.Error("it was not killed")
	}
	if !p.Ended(over, 0) {
		t.Error("it has ended, and Ended says that it has not")
	}
}
