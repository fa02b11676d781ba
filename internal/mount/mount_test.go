package mount

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fixture gives a Mounter whose mount(8) and umount(8) are scripts and whose
// mountinfo is a file that they change. The real ones are tested on a real kernel
// NFS server by the end-to-end test.
type fixture struct {
	*Mounter
	dir, target, info string
}

func newFixture(t *testing.T, mount, umount string) fixture {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f := fixture{dir: dir, target: filepath.Join(dir, "target"), info: filepath.Join(dir, "mountinfo")}
	if err := os.Mkdir(f.target, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, f.info, "")
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	header := fmt.Sprintf("#!/bin/sh\necho \"$(basename $0) $*\" >>%s/calls\ninfo=%s target=%s\n", dir, f.info, f.target)
	for name, script := range map[string]string{"mount": mount, "mount.nfs": mount, "umount": umount} {
		write(t, filepath.Join(bin, name), header+script)
		if err := os.Chmod(filepath.Join(bin, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	f.Mounter = New(Options{MountInfo: f.info, MountTimeout: time.Second, UnmountTimeout: time.Second})
	return f
}

func (f fixture) calls(t *testing.T) string {
	t.Helper()
	calls, err := os.ReadFile(filepath.Join(f.dir, "calls"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(calls)
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// nfs is a Spec as package fs makes them.
func nfs(source string, options ...string) Spec {
	return Spec{
		Type: "nfs", Source: source, Options: options, Helper: "mount.nfs",
		Shows: func(l Layer) bool { return l.FSType == "nfs4" && l.Source == source },
	}
}

func entry(target, source string) string {
	return fmt.Sprintf("40 30 0:50 / %s rw,relatime shared:1 - nfs4 %s rw,vers=4.2\n", target, source)
}

const (
	mountsWhatIsAsked = `case $0 in *mount.nfs) prev=$1;; *) for last; do prev=$source; source=$last; done;; esac
echo "40 30 0:50 / $target rw,relatime shared:1 - nfs4 $prev rw" >>$info`
	umountsTheLast = `sed -i '$d' $info`
)

func TestMountAndUnmount(t *testing.T) {
	f := newFixture(t, mountsWhatIsAsked, umountsTheLast)
	if err := f.Mount(context.Background(), nfs("nfs:/srv/pvc-1", "hard", "ro"), f.target); err != nil {
		t.Fatal(err)
	}
	layers, err := f.Layers(f.target)
	if err != nil || len(layers) != 1 || layers[0].Source != "nfs:/srv/pvc-1" {
		t.Fatalf("layers %v, %v", layers, err)
	}
	for range 2 { // the second finds nothing
		if err := f.Unmount(context.Background(), f.target); err != nil {
			t.Fatal(err)
		}
	}
	want := "mount.nfs nfs:/srv/pvc-1 " + f.target + " -n -o hard,ro\numount -n -c -i " + f.target + "\n"
	if got := f.calls(t); got != want {
		t.Errorf("calls:\n%s\nwant:\n%s", got, want)
	}
}

func TestMountRefusesAMountedTarget(t *testing.T) {
	f := newFixture(t, mountsWhatIsAsked, umountsTheLast)
	write(t, f.info, entry(f.target, "nfs:/other"))
	if err := f.Mount(context.Background(), nfs("nfs:/srv"), f.target); err == nil {
		t.Error("no error")
	}
	if calls := f.calls(t); calls != "" {
		t.Errorf("it ran %s", calls)
	}
}

func TestMountClassifiesFailures(t *testing.T) {
	cases := map[string]struct {
		output string
		want   error
	}{
		"missing": {"mount.nfs: mounting nfs:/x failed, reason given by server: No such file or directory", fs.ErrNotExist},
		"denied":  {"mount.nfs: access denied by server while mounting nfs:/x", fs.ErrPermission},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, fmt.Sprintf("echo %q >&2; exit 32", c.output), umountsTheLast)
			err := f.Mount(context.Background(), nfs("nfs:/x"), f.target)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.output) {
				t.Errorf("got %v, want %v with mount's own words", err, c.want)
			}
		})
	}
}

// csi-driver-nfs #1271: a mount that times out is killed with its helpers, and
// what it did all the same is undone.
func TestMountIsKilledAtItsDeadline(t *testing.T) {
	f := newFixture(t, mountsWhatIsAsked+"\nsleep 600 & echo $! >$info.pid; wait", umountsTheLast)
	err := f.Mount(context.Background(), nfs("nfs:/srv"), f.target)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	if layers, err := f.Layers(f.target); err != nil || len(layers) > 0 {
		t.Errorf("still mounted: %v, %v", layers, err)
	}
	content, err := os.ReadFile(f.info + ".pid")
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil {
		t.Fatal(err)
	}
	// Not even as a zombie: as process 1 of a container nobody else would wait for it.
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the helper %d of mount is still there: %v", pid, err)
	}
}

// A killed mount(8) that does not end, as in the kernel of a client whose server is
// cut off: there is never a second one, and the target counts as busy until it has.
func TestMountThatSurvivesItsKill(t *testing.T) {
	f := newFixture(t, `sleep 1 & wait; exec sleep 2; `, umountsTheLast)
	f.runner.end, f.runner.grace = immortal, 100*time.Millisecond
	err := f.Mount(context.Background(), nfs("nfs:/srv"), f.target)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "does not end after SIGKILL") {
		t.Fatalf("got %v", err)
	}
	for what, again := range map[string]func() error{
		"mount":   func() error { return f.Mount(context.Background(), nfs("nfs:/srv"), f.target) },
		"unmount": func() error { return f.Unmount(context.Background(), f.target) },
	} {
		if err := again(); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "mount on "+f.target) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	if calls := f.calls(t); strings.Count(calls, "mount.nfs ") != 1 {
		t.Errorf("calls:\n%s", calls)
	}
	for deadline := time.Now().Add(time.Minute); f.Unmount(context.Background(), f.target) != nil; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the target is busy for ever")
		}
	}
}

// A plain umount(8) that does not end keeps nobody from detaching.
func TestUmountThatSurvivesItsKill(t *testing.T) {
	f := newFixture(t, "", `case "$*" in *-l*) `+umountsTheLast+`;; *) exec sleep 3;; esac`)
	f.runner.end, f.runner.grace = immortal, 100*time.Millisecond
	for range 2 {
		write(t, f.info, entry(f.target, "nfs:/a"))
		if err := f.Unmount(context.Background(), f.target); err != nil {
			t.Fatal(err)
		}
	}
	if calls := f.calls(t); strings.Count(calls, "-l ") != 2 || strings.Count(calls, "umount ") != 3 {
		t.Errorf("calls:\n%s", calls)
	}
}

func TestMountOfSomethingElseIsUndone(t *testing.T) {
	f := newFixture(t, `echo "40 30 0:50 / $target rw - nfs4 nfs:/elsewhere rw" >>$info`, umountsTheLast)
	err := f.Mount(context.Background(), nfs("nfs:/srv/pvc-1"), f.target)
	if !errors.Is(err, ErrSource) || !strings.Contains(err.Error(), "nfs:/elsewhere") {
		t.Errorf("got %v", err)
	}
	if layers, _ := f.Layers(f.target); len(layers) > 0 {
		t.Errorf("left mounted: %v", layers)
	}
}

func TestLayersReadsEscapesAndGoneDirectories(t *testing.T) {
	f := newFixture(t, "", "")
	spaced := filepath.Join(f.dir, "with space")
	write(t, f.info, entry(strings.ReplaceAll(spaced, " ", `\040`), `nfs:/a\040b`)+entry(f.target+"//deleted", "nfs:/gone")+entry(f.target+"/below", "nfs:/below"))
	if layers, err := f.Layers(spaced); err != nil || len(layers) != 1 || layers[0].Source != "nfs:/a b" {
		t.Errorf("%v, %v", layers, err)
	}
	if layers, err := f.Layers(f.target); err != nil || len(layers) != 1 || layers[0].Source != "nfs:/gone" {
		t.Errorf("%v, %v", layers, err)
	}
}

// Somebody else's mount without a source: mountinfo has an empty field there.
func TestLayersReadsOtherOddMounts(t *testing.T) {
	f := newFixture(t, "", "")
	write(t, f.info, "39 30 0:49 / /odd rw,relatime - tmpfs  rw,size=1k\n"+entry(f.target, "nfs:/a"))
	if layers, err := f.Layers(f.target); err != nil || len(layers) != 1 {
		t.Errorf("%v, %v", layers, err)
	}
}

// A kubelet folder that is a link: mountinfo shows where it leads.
func TestLayersResolvesParents(t *testing.T) {
	f := newFixture(t, "", "")
	link := filepath.Join(f.dir, "link")
	if err := os.Symlink(f.dir, link); err != nil {
		t.Fatal(err)
	}
	write(t, f.info, entry(f.target, "nfs:/a"))
	if layers, err := f.Layers(filepath.Join(link, "target")); err != nil || len(layers) != 1 {
		t.Errorf("%v, %v", layers, err)
	}
	for _, bad := range []string{"", "/", "relative", f.dir + "/../x", f.dir + "/"} {
		if _, err := f.Layers(bad); err == nil {
			t.Errorf("%q passes", bad)
		}
	}
}

func TestCheck(t *testing.T) {
	f := newFixture(t, "", "")
	if err := f.Check(); err != nil {
		t.Error(err)
	}
	for _, program := range []string{"mount", "umount"} {
		t.Setenv("PATH", "/nonexistent")
		if err := f.Check(); err == nil || !strings.Contains(err.Error(), `"`+program+`"`) {
			t.Errorf("without %s: %v", program, err)
		}
	}
	if err := New(Options{Helpers: []string{"mount.nosuchtype"}}).Check(); err == nil || !strings.Contains(err.Error(), "mount.nosuchtype") {
		t.Errorf("without its helper: %v", err)
	}
	if err := New(Options{MountInfo: "/nonexistent"}).Check(); !errors.Is(err, unix.ENOENT) {
		t.Errorf("got %v", err)
	}
}
