package share

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/volume"
)

func TestCreateSetsTheModeWhateverTheUmask(t *testing.T) {
	f := newFixture(t)
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	must(t, f.Create(ctx, nfs, "pvc-1", 0o777))
	if got := mode(t, f.path("pvc-1")); got != fs.ModeDir|0o777 {
		t.Errorf("mode %v", got)
	}
}

func TestCreateAgainKeepsWhatAPodHasDone(t *testing.T) {
	f := newFixture(t)
	must(t, f.Create(ctx, nfs, "pvc-1", 0o777))
	must(t, os.WriteFile(f.path("pvc-1", "data"), []byte("x"), 0o600))
	must(t, os.Chmod(f.path("pvc-1"), 0o700))
	must(t, f.Create(ctx, nfs, "pvc-1", 0o777))
	if got := mode(t, f.path("pvc-1")); got != fs.ModeDir|0o700 {
		t.Errorf("mode %v", got)
	}
	if _, err := os.Stat(f.path("pvc-1", "data")); err != nil {
		t.Error(err)
	}
}

// A crash between mkdir and chmod.
func TestCreateFinishesWhatACrashLeft(t *testing.T) {
	f := newFixture(t)
	must(t, os.Mkdir(f.path("pvc-1"), unfinishedMode))
	must(t, f.Create(ctx, nfs, "pvc-1", 0o777))
	if got := mode(t, f.path("pvc-1")); got != fs.ModeDir|0o777 {
		t.Errorf("mode %v", got)
	}
}

func TestLinksAndFilesInTheirPlaceAreLeftAlone(t *testing.T) {
	f := newFixture(t)
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "precious"), []byte("x"), 0o600))
	must(t, os.Chmod(outside, 0o500))
	must(t, os.Symlink(outside, f.path("pvc-link")))
	must(t, os.WriteFile(f.path("pvc-file"), []byte("x"), 0o600))
	for _, name := range []volume.SubDir{"pvc-link", "pvc-file"} {
		if err := f.Create(ctx, nfs, name, 0o777); err == nil {
			t.Errorf("create %s: no error", name)
		}
		if err := f.Remove(ctx, nfs, name); err == nil {
			t.Errorf("remove %s: no error", name)
		}
		if _, err := os.Lstat(f.path(string(name))); err != nil {
			t.Errorf("%s is gone", name)
		}
	}
	if got := mode(t, outside); got != fs.ModeDir|0o500 {
		t.Errorf("the mode of the link's target changed: %v", got)
	}
	if _, err := os.Stat(filepath.Join(outside, "precious")); err != nil {
		t.Error(err)
	}
}

func TestRemove(t *testing.T) {
	f := newFixture(t)
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "precious"), []byte("x"), 0o600))
	must(t, os.MkdirAll(f.path("pvc-1", "a", "b", "c"), 0o700))
	must(t, os.MkdirAll(f.path("pvc-10"), 0o700))
	must(t, os.WriteFile(f.path("pvc-1", "a", "b", "file"), nil, 0o000))
	must(t, os.Symlink(outside, f.path("pvc-1", "a", "link-to-dir")))
	must(t, os.Symlink("/", f.path("pvc-1", "root")))
	must(t, os.Symlink("loop", f.path("pvc-1", "loop")))
	must(t, os.WriteFile(f.path("pvc-1", "-rf\n*"), nil, 0o600))
	must(t, unix.Mkfifo(f.path("pvc-1", "fifo"), 0o600))
	for range 2 { // the second finds nothing
		must(t, f.Remove(ctx, nfs, "pvc-1"))
		if _, err := os.Lstat(f.path("pvc-1")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("still there: %v", err)
		}
	}
	for _, kept := range []string{filepath.Join(outside, "precious"), f.path("pvc-10")} {
		if _, err := os.Stat(kept); err != nil {
			t.Error(err)
		}
	}
}

func TestRemoveManyFiles(t *testing.T) {
	f := newFixture(t)
	must(t, os.Mkdir(f.path("pvc-1"), 0o700))
	for i := range 2500 { // more than one read of the directory
		must(t, os.WriteFile(f.path("pvc-1", strings.Repeat("x", i%100)+string(rune('a'+i%26))+time.Duration(i).String()), nil, 0o600))
	}
	must(t, f.Remove(ctx, nfs, "pvc-1"))
}

// A pod can nest directories without end; removing them takes few descriptors and
// little memory.
func TestRemoveOfADeepTree(t *testing.T) {
	f := newFixture(t)
	must(t, os.Mkdir(f.path("pvc-1"), 0o700))
	dir, err := unix.Open(f.path("pvc-1"), openDirFlags, 0)
	must(t, err)
	name := strings.Repeat("d", 200)
	for range 10 * maxDepth {
		must(t, unix.Mkdirat(dir, name, 0o700))
		must(t, unix.Mkdirat(dir, "beside", 0o700))
		next, err := unix.Openat(dir, name, openDirFlags, 0)
		must(t, err)
		must(t, unix.Close(dir))
		dir = next
	}
	must(t, unix.Close(dir))
	var limit unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	low := limit
	low.Cur = 3 * maxDepth
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &low))
	defer func() { must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)) }()
	must(t, f.Remove(ctx, nfs, "pvc-1"))
	if _, err := os.Lstat(f.path("pvc-1")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("still there: %v", err)
	}
}

func TestRemoveStopsAndResumes(t *testing.T) {
	f := newFixture(t)
	must(t, os.MkdirAll(f.path("pvc-1", "a"), 0o700))
	must(t, os.WriteFile(f.path("pvc-1", "a", "file"), nil, 0o600))
	ended, cancel := context.WithCancel(ctx)
	must(t, f.Create(ctx, nfs, "pvc-2", 0o777)) // mounted before
	cancel()
	if err := f.Remove(ended, nfs, "pvc-1"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	must(t, f.Remove(ctx, nfs, "pvc-1"))
}
