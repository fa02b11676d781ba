package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sharevol.dev/sharevol/internal/process"
)

// immortal is a runner's end where SIGKILL ends nothing, as in the kernel of a client whose
// server is cut off.
func immortal(p *process.Process, grace time.Duration) error {
	if p.Ended(context.Background(), grace) {
		return nil
	}
	return fmt.Errorf("process group %d %w", p.PID(), process.ErrAlive)
}

// A daemon that mount(8) started, as rpc.statd is, becomes one while it is waited for.
func TestWhatLeavesTheGroupIsNotWaitedFor(t *testing.T) {
	f := newFixture(t, mountsWhatIsAsked+"\n(sleep 0.3; exec setsid sh -c 'echo $$ >'$info.pid'; exec sleep 600') >/dev/null 2>&1 &\nexit 0\n", umountsTheLast)
	f.Mounter = New(Options{MountInfo: f.info, MountTimeout: 20 * time.Second})
	if err := f.Mount(context.Background(), nfs("nfs:/srv"), f.target); err != nil {
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

// A plain umount(8) that does not end, while the program has only seconds left.
func TestUmountThatDoesNotDieLeavesTimeForDetaching(t *testing.T) {
	f := newFixture(t, "", `case "$*" in *-l*) `+umountsTheLast+`;; *) echo $$ >$info.pid; exec sleep 600;; esac`)
	f.Mounter = New(Options{MountInfo: f.info})
	f.runner.end = immortal
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
	f.runner.end = immortal
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
