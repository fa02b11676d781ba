package helper_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/share/dirs"
	"sharevol.dev/sharevol/internal/share/helper"
	"sharevol.dev/sharevol/internal/share/helper/fakehelper"
)

func TestAHelperWorksOnAShare(t *testing.T) {
	p, share := open(t, helper.Options{})
	created, err := p.Create(ctx, create("a/b"))
	if err != nil || !created.Made || created.ShareID == "" {
		t.Fatalf("created %+v, %v", created, err)
	}
	if _, err := os.Stat(filepath.Join(share, "a/b")); err != nil {
		t.Error(err)
	}
	must(t, p.Probe(ctx))
	must(t, p.Delete(ctx, dirs.Target{SubDir: "a/b", Owner: create("").Owner, ShareID: created.ShareID}))
	if _, err := os.Stat(filepath.Join(share, "a/b")); err == nil {
		t.Error("it is still there")
	}
}

// A local directory that shows where the share should be mounted.
func TestOnlyAnNFSMountIsOpened(t *testing.T) {
	p := start(t, helper.Options{Path: t.TempDir(), NFS: true})
	if err := p.Open(ctx); err == nil || !strings.Contains(err.Error(), "no NFS export") {
		t.Errorf("got %v", err)
	}
	if _, err := p.Create(ctx, create("pvc-1")); !errors.Is(err, dirs.ErrUntouched) {
		t.Errorf("not open, but got %v", err)
	}
}

// A dead server, csi-driver-nfs #855 and others: the call returns, and nothing is
// left that waits for the server.
func TestAHelperThatHangsIsKilledAtTheDeadline(t *testing.T) {
	p, _ := open(t, helper.Options{Command: fakehelper.Command(), Timeout: time.Second})
	beside := inBackground(func() error { return p.Delete(ctx, dirs.Target{SubDir: fakehelper.SteadyDir}) })
	started := time.Now()
	_, err := p.Create(ctx, create(fakehelper.HangingDir))
	if !errors.Is(err, helper.ErrNoAnswer) || errors.Is(err, dirs.ErrUntouched) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(started); took < time.Second || took > 4*time.Second {
		t.Errorf("after %v", took)
	}
	if !fakehelper.Gone(p.PID()) {
		t.Error("the process is still there")
	}
	if err := <-beside; !errors.Is(err, helper.ErrNoAnswer) || errors.Is(err, dirs.ErrUntouched) {
		t.Errorf("beside it: %v", err)
	}
	if _, err := p.Create(ctx, create("pvc-1")); !errors.Is(err, helper.ErrNoAnswer) || !errors.Is(err, dirs.ErrUntouched) {
		t.Errorf("afterwards: %v", err)
	}
}

func TestOpeningCanHangToo(t *testing.T) {
	share := t.TempDir()
	must(t, unix.Mkfifo(filepath.Join(share, fakehelper.Hang), 0o600))
	p := start(t, helper.Options{Command: fakehelper.Command(), Path: share, Timeout: 500 * time.Millisecond})
	if err := p.Open(ctx); !errors.Is(err, helper.ErrNoAnswer) {
		t.Errorf("got %v", err)
	}
	// A stop does not wait for the deadline.
	p = start(t, helper.Options{Command: fakehelper.Command(), Path: share, Timeout: time.Hour})
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if err := p.Open(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// A removal that goes on has no deadline, tells of it now and then, and stops
// when it is cancelled.
func TestProgressAndCancelling(t *testing.T) {
	p, _ := open(t, helper.Options{Command: fakehelper.Command(), Timeout: 500 * time.Millisecond})
	cancelled, cancel := context.WithCancel(ctx)
	var told atomic.Int64
	running := inBackground(func() error {
		return p.Delete(dirs.WithProgress(cancelled, func() { told.Add(1) }), dirs.Target{SubDir: fakehelper.SteadyDir})
	})
	select {
	case err := <-running:
		t.Fatalf("ended by itself: %v", err)
	case <-time.After(2 * time.Second):
	}
	cancel()
	if err := <-running; !errors.Is(err, context.Canceled) || errors.Is(err, dirs.ErrUntouched) {
		t.Errorf("got %v", err)
	}
	// It takes a step every 10 ms.
	if n := told.Load(); n < 3 || n > 25 {
		t.Errorf("told of progress %d times in 2 s", n)
	}
	if _, err := p.Create(cancelled, create("pvc-1")); !errors.Is(err, context.Canceled) || !errors.Is(err, dirs.ErrUntouched) {
		t.Errorf("cancelled before: %v", err)
	}
	must(t, p.Probe(ctx))
}

func TestAHelperThatCrashes(t *testing.T) {
	p, _ := open(t, helper.Options{Command: fakehelper.Command()})
	beside := inBackground(func() error { return p.Delete(ctx, dirs.Target{SubDir: fakehelper.SteadyDir}) })
	for _, err := range []error{func() error { _, err := p.Create(ctx, create(fakehelper.CrashingDir)); return err }(), <-beside} {
		if !errors.Is(err, helper.ErrGone) || errors.Is(err, dirs.ErrUntouched) || !strings.Contains(err.Error(), "killed") {
			t.Errorf("got %v", err)
		}
	}
	<-p.Done()
	if _, err := p.Create(ctx, create("pvc-1")); !errors.Is(err, helper.ErrGone) || !errors.Is(err, dirs.ErrUntouched) {
		t.Errorf("afterwards: %v", err)
	}
}

func TestAHelperThatTalksNonsenseIsKilled(t *testing.T) {
	cases := map[string][]string{
		"text":              command("says", "hello\n"),
		"no object":         command("says", "[]\n"),
		"nobody's reply":    command("says", `{"id":7}`),
		"nobody's":          command("says", `{}`),
		"a frame too large": command("says-without-end"),
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			p := start(t, helper.Options{Command: c, Timeout: time.Minute})
			if err := p.Open(ctx); !errors.Is(err, helper.ErrGone) || !strings.Contains(err.Error(), "killed for what it sent") {
				t.Errorf("got %v", err)
			}
			if !fakehelper.Gone(p.PID()) {
				t.Error("the process is still there")
			}
		})
	}
}

// ESTALE of something inside the share says nothing about its root.
func TestAStaleRootIsToldFromAStaleEntry(t *testing.T) {
	p, share := open(t, helper.Options{Command: fakehelper.Command()})
	if _, err := p.Create(ctx, create(fakehelper.StaleDir)); !errors.Is(err, unix.ESTALE) || errors.Is(err, helper.ErrStale) {
		t.Errorf("an entry: %v", err)
	}
	must(t, os.WriteFile(filepath.Join(share, fakehelper.Stale), nil, 0o600))
	if _, err := p.Create(ctx, create("pvc-1")); !errors.Is(err, unix.ESTALE) || !errors.Is(err, helper.ErrStale) {
		t.Errorf("the root: %v", err)
	}
}

// Somebody made the share root anew, below a mount that stays.
func TestARemovedRootIsStale(t *testing.T) {
	p, share := open(t, helper.Options{})
	must(t, os.RemoveAll(share))
	must(t, os.Mkdir(share, 0o700))
	if _, err := p.Create(ctx, create("pvc-1")); !errors.Is(err, helper.ErrStale) {
		t.Errorf("got %v", err)
	}
}

func TestEndKillsWhatDoesNotEndByItself(t *testing.T) {
	cases := map[string]helper.Options{
		"hangs in an operation": {Command: fakehelper.Command()},
		"does not listen":       {Command: command("deaf-helper")},
	}
	for name, options := range cases {
		t.Run(name, func(t *testing.T) {
			options.Path, options.Timeout = t.TempDir(), time.Hour
			p := start(t, options)
			running := inBackground(func() error {
				if err := p.Open(ctx); err != nil {
					return err
				}
				_, err := p.Create(ctx, create(fakehelper.HangingDir))
				return err
			})
			time.Sleep(100 * time.Millisecond)
			must(t, p.End(ctx))
			if !fakehelper.Gone(p.PID()) {
				t.Error("the process is still there")
			}
			if err := <-running; !errors.Is(err, helper.ErrGone) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A helper has what it needs and no more: not the provisioner's environment, nor
// its descriptors.
func TestWhatAHelperHas(t *testing.T) {
	t.Setenv("SECRET", "x")
	beside, _ := open(t, helper.Options{}) // whose pipes must not be inherited
	p, share := open(t, helper.Options{Name: "nfs:/srv"})
	proc := fmt.Sprintf("/proc/%d/", p.PID())
	environment, err := os.ReadFile(proc + "environ")
	must(t, err)
	if got := string(bytes.TrimRight(environment, "\x00")); got != "GOMAXPROCS=2\x00GOGC=50\x00GOMEMLIMIT=32MiB" {
		t.Errorf("environment %q", got)
	}
	if line, err := os.ReadFile(proc + "cmdline"); err != nil || !bytes.HasSuffix(line, []byte(" for nfs:/srv\x00share-helper\x00")) {
		t.Errorf("command line %q, %v", line, err)
	}
	if group, err := unix.Getpgid(p.PID()); err != nil || group != p.PID() {
		t.Errorf("group %d, %v", group, err)
	}
	inherited := inheritable(t)
	links, err := filepath.Glob(proc + "fd/*")
	must(t, err)
	for _, link := range links {
		target, err := os.Readlink(link)
		must(t, err)
		// Go's runtime has some of its own.
		known := slices.Contains(append(inherited, "0", "1", "2"), filepath.Base(link)) || target == share ||
			strings.HasPrefix(target, "anon_inode:") || strings.HasPrefix(target, "/sys/fs/cgroup/")
		if !known {
			t.Errorf("descriptor %s: %s", filepath.Base(link), target)
		}
	}
	must(t, beside.End(ctx))
}

// inheritable returns the descriptors with which this test was itself started.
func inheritable(t *testing.T) []string {
	t.Helper()
	infos, err := filepath.Glob("/proc/self/fdinfo/*")
	must(t, err)
	var numbers []string
	for _, info := range infos {
		number, err := strconv.Atoi(filepath.Base(info))
		must(t, err)
		if flags, err := unix.FcntlInt(uintptr(number), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			numbers = append(numbers, filepath.Base(info))
		}
	}
	return numbers
}

func TestAProgramThatCannotBeStarted(t *testing.T) {
	fakehelper.CheckLeaks(t)
	for range 100 { // leaked descriptors would run out
		if _, err := helper.Start(helper.Options{Command: []string{"/nonexistent"}}); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("got %v", err)
		}
	}
	if descriptors, err := os.ReadDir("/proc/self/fd"); err != nil || len(descriptors) > 50 {
		t.Errorf("%d descriptors are open, %v", len(descriptors), err)
	}
}

// What a share costs in memory while nothing happens on it. (The provisioner's
// own program has more packages to initialise than this test's.)
func TestMemoryOfAnIdleHelper(t *testing.T) {
	p, _ := open(t, helper.Options{})
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	must(t, err)
	t.Logf("%s", bytes.Join(regexp.MustCompile(`(?m)^(VmRSS|RssAnon|RssFile|Threads):.*$`).FindAll(status, -1), []byte("; ")))
}
