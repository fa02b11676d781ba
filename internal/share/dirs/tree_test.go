package dirs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newVolume makes a volume "a" and returns what deletes it under a lease.
func newVolume(t *testing.T) (*share, func(context.Context, Options) error) {
	t.Helper()
	s := newShare(t)
	must(t, newCreate(s.open(Options{}), create("a")))
	return s, func(ctx context.Context, o Options) error {
		t.Helper()
		return s.open(o).Delete(ctx, create("a").target())
	}
}

func TestRemoveManyFiles(t *testing.T) {
	s, remove := newVolume(t)
	for i := range 2600 { // more than one read of the directory
		s.write("", "a", fmt.Sprintf("%s%d", strings.Repeat("x", i%240), i))
	}
	must(t, remove(ctx, Options{}))
	s.lacks("a")
}

// deep makes a chain of directories, each with another beside it, and returns the
// descriptor of the last.
func deep(t *testing.T, s *share, levels int, mode uint32) {
	t.Helper()
	dir, err := unix.Open(s.in("a"), openDirFlags, 0)
	must(t, err)
	name := strings.Repeat("d", 253)
	for range levels {
		must(t, unix.Mkdirat(dir, name, 0o700))
		must(t, unix.Mkdirat(dir, "beside", 0o700))
		next, err := unix.Openat(dir, name, openDirFlags, 0)
		must(t, err)
		must(t, unix.Fchmod(dir, mode))
		must(t, unix.Close(dir))
		dir = next
	}
	must(t, unix.Close(dir))
}

// A pod can nest directories without end; removing them takes few descriptors.
func TestRemoveOfADeepTree(t *testing.T) {
	s, remove := newVolume(t)
	deep(t, s, 10*maxDepth, 0o700)
	var limit unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	low := limit
	low.Cur = 5 * maxDepth
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &low))
	defer func() { must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)) }()
	must(t, remove(ctx, Options{}))
	s.lacks("a")
	s.lacks(folderName, trashName, "pvc-a")
}

// Many deep trees at once: each worker has one of its own.
func TestRemoveOfManyDeepTrees(t *testing.T) {
	s, remove := newVolume(t)
	for i := range 40 {
		must(t, os.MkdirAll(s.in("a", fmt.Sprint(i), strings.Repeat("x/", 3*maxDepth)), 0o700))
	}
	most := 0
	l := &lease{before: func(step int64) {
		if step%50 == 0 {
			fds, err := os.ReadDir("/proc/self/fd")
			if err != nil {
				t.Error(err)
			}
			most = max(most, len(fds)) // a race here would be a loss of precision
		}
	}}
	var one sync.Mutex
	must(t, remove(ctx, Options{Workers: 4, Fence: func() error {
		one.Lock()
		defer one.Unlock()
		return l.check()
	}}))
	s.lacks(folderName, trashName, "pvc-a")
	if most > 4*(maxDepth+3)+50 {
		t.Errorf("%d descriptors", most)
	}
}

func TestRemoveOfWhatItsOwnerMayNotChange(t *testing.T) {
	s, remove := newVolume(t)
	for _, mode := range []os.FileMode{0, 0o100, 0o200, 0o300, 0o400, 0o500, 0o600} {
		name := mode.String()
		s.write("x", "a", name, "sub", "file")
		s.write("x", "a", name, "file")
		must(t, os.Mkdir(s.in("a", name, "empty"), 0))
		must(t, os.Chmod(s.in("a", name, "sub"), mode))
		must(t, os.Chmod(s.in("a", name), mode))
	}
	deep(t, s, 2*maxDepth, 0o500)
	must(t, os.Chmod(s.in("a"), 0))
	must(t, remove(ctx, Options{}))
	s.lacks("a")
	s.lacks(folderName, trashName, "pvc-a")
}

// An archive keeps its mode, even one that forbids its owner to move it.
func TestArchiveOfWhatItsOwnerMayNotChange(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	with(create("ns/a"))(s, root)
	must(t, os.Chmod(s.in("ns", "a"), 0o500))
	if _, err := root.Archive(ctx, create("ns/a").target()); err != nil {
		t.Fatal(err)
	}
	if got := s.perm("archived-pvc-a", "ns", "a"); got != 0o500 {
		t.Errorf("mode %#o", got)
	}
	must(t, os.Chmod(s.in("archived-pvc-a", "ns", "a"), 0o700))
	s.has("x", "archived-pvc-a", "ns", "a", "file")
}

// As many directories at a time as there are workers, and never more, whatever the
// tree's shape; of one directory's entries never two.
func TestWorkers(t *testing.T) {
	for name, test := range map[string]struct {
		path  func(i int) string
		alone bool // no worker finds anything to do beside the first
	}{
		"wide":             {path: func(i int) string { return fmt.Sprint(i) }, alone: true},
		"many directories": {path: func(i int) string { return fmt.Sprintf("%d/%d/%d", i%30, i%7, i) }},
		"far below":        {path: func(i int) string { return fmt.Sprintf("%s/%d/%d", strings.Repeat("d/", 25), i%24, i) }},
		"much in the last": {path: func(i int) string { return fmt.Sprintf("%d/%d/%d", max(0, 10-i), i%24, i) }},
	} {
		for _, workers := range []int{1, 2, 16} {
			t.Run(fmt.Sprint(name, " ", workers), func(t *testing.T) {
				s := newShare(t)
				want := workers
				if test.alone {
					want = 1
				}
				if got := atOnce(s, workers, 0, want, test.path); got != want {
					t.Errorf("%d at a time", got)
				}
			})
		}
	}
}

// Those who remove several trees share the workers; each has one.
func TestWorkersOfSeveralTrees(t *testing.T) {
	for others, want := range map[int]int{1: 4, 2: 2, 3: 2, 7: 1, 20: 1} {
		path := func(i int) string { return fmt.Sprintf("%d/%d", i%24, i) }
		if got := atOnce(newShare(t), 8, others, want, path); got != want {
			t.Errorf("%d at a time beside %d others", got, others)
		}
	}
}

// atOnce removes a volume of 600 files at the paths that path returns while other trees
// are being removed, and returns how many steps there were at a time. It makes the steps
// long until there are want.
func atOnce(s *share, workers, others, want int, path func(i int) string) int {
	var now, most atomic.Int64
	full := make(chan struct{})
	var once sync.Once
	root := s.open(Options{Workers: workers, Fence: func() error {
		n := now.Add(1)
		defer now.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		_, left := os.Lstat(s.in(folderName, ownersName, leftName("a", owner("pvc-a"))))
		if left != nil || len(entries(s, folderName, trashName)) == 0 {
			return nil // before the removal, or after it
		}
		if n == int64(want) {
			once.Do(func() { close(full) })
		}
		select { // until all are here at once, if they come
		case <-full:
		case <-time.After(20 * time.Millisecond):
		}
		return nil
	}})
	must(s.t, newCreate(root, create("a")))
	for i := range 600 {
		s.write("", "a", path(i))
	}
	root.trees.Add(int64(others))
	must(s.t, root.Delete(ctx, create("a").target()))
	s.lacks(folderName, trashName, "pvc-a")
	return int(most.Load())
}

func TestRemoveStopsAndResumes(t *testing.T) {
	s, remove := newVolume(t)
	for i := range 500 {
		s.write("", "a", fmt.Sprint(i%10), fmt.Sprint(i))
	}
	for range 5 {
		ended, cancel := context.WithCancel(ctx)
		var steps atomic.Int64
		err := remove(ended, Options{Fence: func() error {
			if steps.Add(1) == 50 {
				cancel()
			}
			return nil
		}})
		if !errors.Is(err, context.Canceled) || errors.Is(err, ErrUntouched) {
			t.Fatal(err)
		}
		if n := steps.Load(); n > 50+12 {
			t.Errorf("%d steps", n)
		}
		s.lacks("a")
	}
	must(t, remove(ctx, Options{}))
	s.lacks(folderName, trashName, "pvc-a")
	ended, cancel := context.WithCancel(ctx)
	cancel()
	is(t, remove(ended, Options{}), ErrUntouched, context.Canceled)
}

// What somebody fills as fast as it is emptied does not keep the rest.
func TestAllThatCanBeRemovedIs(t *testing.T) {
	s, remove := newVolume(t)
	trash := func(names ...string) string {
		return s.in(append([]string{folderName, trashName, "pvc-a"}, names...)...)
	}
	for i := range 6 {
		s.write("x", "a", fmt.Sprintf("busy%d", i), "file")
		s.write("x", "a", fmt.Sprintf("quiet%d", i), "dir", "file")
	}
	must(t, os.MkdirAll(s.in("a", strings.Repeat("deep/", 5*maxDepth)), 0o700))
	var n atomic.Int64
	refill := func() error {
		if n.Load() > 5000 {
			return errors.New("it goes on for ever")
		}
		for i := range 6 {
			busy := trash(fmt.Sprintf("busy%d", i))
			if entries, err := os.ReadDir(busy); err == nil && len(entries) == 0 {
				_ = os.WriteFile(filepath.Join(busy, fmt.Sprint(n.Add(1))), nil, 0o600)
			}
		}
		return nil
	}
	err := remove(ctx, Options{Workers: 1, Fence: refill})
	says(t, err, "rmdir .sharevol/trash/pvc-a/busy", "; and 3 more")
	if n := strings.Count(err.Error(), "rmdir"); n != maxShown {
		t.Errorf("%d failures in %v", n, err)
	}
	is(t, err, unix.ENOTEMPTY)
	isNot(t, err, ErrUntouched)
	left, err := os.ReadDir(trash())
	must(t, err)
	if len(left) != 6 || !s.recorded("a") {
		t.Error(left)
	}
	must(t, remove(ctx, Options{}))
	if _, err := os.Lstat(trash()); err == nil {
		t.Error("still there")
	}
}
