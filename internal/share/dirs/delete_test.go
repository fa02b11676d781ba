package dirs

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDeleteRemovesTheVolumeAndNothingElse(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "precious"), []byte("x"), 0o600))
	with(create("pvc-1"), create("pvc-10"), create("ns/pvc-1/x"))(s, root)
	must(t, os.Symlink(outside, s.in("pvc-1", "link-to-dir")))
	must(t, os.Symlink(s.in("pvc-10"), s.in("pvc-1", "link-to-volume")))
	must(t, os.Symlink("loop", s.in("pvc-1", "loop")))
	must(t, os.Symlink("/nowhere", s.in("pvc-1", "dangling")))
	for _, name := range []string{"-rf\n*", "\xff\xfe", " ", strings.Repeat("ä", 127), ".nfs0001", "..."} {
		s.write("x", "pvc-1", name)
	}
	must(t, unix.Mkfifo(s.in("pvc-1", "fifo"), 0o600))
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	must(t, err)
	must(t, os.Chdir(s.in("pvc-1"))) // a socket's path is at most 107 bytes long
	must(t, unix.Bind(socket, &unix.SockaddrUnix{Name: "socket"}))
	must(t, os.Chdir("/"))
	must(t, unix.Close(socket))
	must(t, os.Link(s.in("pvc-10", "file"), s.in("pvc-1", "hard link")))
	for range 2 { // the second finds nothing
		must(t, root.Delete(ctx, create("pvc-1").target()))
		s.lacks("pvc-1")
		s.lacks(folderName, trashName, "pvc-pvc-1")
		s.lacks(folderName, ownersName, recordName("pvc-1"))
	}
	s.has("x", "pvc-10", "file")
	// nfs-subdir #139: another volume's directory of the same base name was deleted.
	s.has("x", "ns", "pvc-1", "x", "file")
	if _, err := os.Stat(filepath.Join(outside, "precious")); err != nil {
		t.Error(err)
	}
}

// csi-driver-nfs #855: the clean-up of parents that were thought to be empty
// deleted all data.
func TestParentsGoOnlyIfEmptyAndOurs(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	must(t, os.MkdirAll(s.in("theirs"), 0o755))
	with(create("theirs/ours/a"), create("theirs/ours/b/c"))(s, root)
	s.write("x", "theirs", "ours", "b", "put here by hand")
	must(t, root.Delete(ctx, create("theirs/ours/b/c").target()))
	s.has("x", "theirs", "ours", "b", "put here by hand")
	must(t, root.Delete(ctx, create("theirs/ours/a").target()))
	s.has("x", "theirs", "ours", "b", "put here by hand")
	must(t, os.Remove(s.in("theirs", "ours", "b", "put here by hand")))
	must(t, newCreate(root, create("theirs/ours/b/c")))
	must(t, root.Delete(ctx, create("theirs/ours/b/c").target()))
	s.lacks("theirs", "ours")
	if entries, err := os.ReadDir(s.in("theirs")); err != nil || len(entries) > 0 {
		t.Error(entries, err)
	}
	if entries, err := os.ReadDir(s.in(folderName, ownersName)); err != nil || len(entries) > 0 {
		t.Error(entries, err)
	}
}

func TestDeleteNeedsARecord(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	with(create("a"))(s, root)
	must(t, os.Remove(s.in(folderName, ownersName, recordName("a"))))
	must(t, os.Remove(s.in(folderName, ownersName, markName("a", owner("pvc-a")))))
	before := s.tree()
	err := root.Delete(ctx, create("a").target())
	is(t, err, ErrConflict, ErrUntouched)
	says(t, err, "has no record that sharevol made it for this volume: left as it is")
	_, err = root.Archive(ctx, create("a").target())
	is(t, err, ErrConflict, ErrUntouched)
	must(t, root.Release(ctx, create("a").target()))
	must(t, root.Drop(ctx, create("a").target()))
	// What is in the trash without a record is no reason to remove it either.
	must(t, os.Mkdir(s.in(folderName, trashName), 0o700))
	must(t, os.Rename(s.in("a"), s.in(folderName, trashName, "pvc-a")))
	must(t, root.Drop(ctx, create("a").target()))
	is(t, root.Delete(ctx, create("a").target()), ErrConflict, ErrUntouched)
	must(t, os.Rename(s.in(folderName, trashName, "pvc-a"), s.in("a")))
	if s.tree() != before {
		t.Errorf("the share changed from\n%s to\n%s", before, s.tree())
	}
	must(t, os.Chmod(s.in("a", "closed"), 0o700))
}

// What is in the trash is removed, and what has come in its place is left alone.
func TestDeleteResumesAndRenamesNothingAgain(t *testing.T) {
	s := newShare(t)
	with(create("a"))(s, s.open(Options{}))
	must(t, os.MkdirAll(s.in(folderName, trashName), 0o700))
	l := &lease{end: 3}
	err := s.open(Options{Fence: l.check}).Delete(ctx, create("a").target())
	is(t, err, ErrFenced)
	isNot(t, err, ErrUntouched)
	s.lacks("a")
	s.write("restored by hand", "a", "file")
	must(t, s.open(Options{}).Delete(ctx, create("a").target()))
	s.has("restored by hand", "a", "file")
	s.lacks(folderName, trashName, "pvc-a")
}

func TestProgressAfterEachStep(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	must(t, newCreate(root, create("a")))
	for i := range 100 {
		s.write("x", "a", string(rune('a'+i%26)), strings.Repeat("x", i+1))
	}
	var steps atomic.Int64
	telling := WithProgress(ctx, func() { steps.Add(1) })
	must(t, root.Delete(telling, create("a").target()))
	if n := steps.Swap(0); n != 100+26+1 {
		t.Errorf("%d steps of a removal", n)
	}
	for i := range 10 {
		must(t, newCreate(root, create("b"+strconv.Itoa(i))))
	}
	if _, err := root.Records(telling, cluster); err != nil || steps.Load() != 10 {
		t.Errorf("%d steps of reading 10 records, %v", steps.Load(), err)
	}
}

// A link comes in the place of the volume directory just before it is renamed, or
// another directory does: it is put back, and nothing is removed.
func TestWhatIsRenamedIsWhatWasChecked(t *testing.T) {
	leave := map[string]struct {
		run  func(*Root) error
		step int64 // the rename
	}{
		"delete":  {func(root *Root) error { return root.Delete(ctx, create("a").target()) }, 1},
		"archive": {func(root *Root) error { return doArchive(create("a"))(ctx, root) }, 3},
	}
	for name, swap := range map[string]func(s *share){
		"link":      func(s *share) { must(s.t, os.Symlink("victim", s.in("a"))) },
		"directory": func(s *share) { must(s.t, os.Rename(s.in("victim"), s.in("a"))) },
		"file":      func(s *share) { s.write("victim", "a") },
	} {
		for how, leave := range leave {
			t.Run(how+" "+name, func(t *testing.T) {
				s := newShare(t)
				prepare(s, scenario{before: with(create("a"), create("victim"))})
				clean := func(tree string) string {
					return without(without(tree, "/archived-pvc-a"), "/"+recordPath("archived-pvc-a"))
				}
				want := ""
				l := &lease{before: func(step int64) {
					if step == leave.step {
						must(t, os.Rename(s.in("a"), s.in("a.away")))
						swap(s)
						want = clean(s.tree())
					}
				}}
				err := leave.run(s.open(Options{Fence: l.check, Workers: 1}))
				says(t, err, "a was replaced")
				isNot(t, err, ErrUntouched)
				if got := clean(s.tree()); got != want {
					t.Errorf("the share changed from\n%s to\n%s", want, got)
				}
			})
		}
	}
}

// If something else has come in its place meanwhile, what was swapped in must not
// stay in the trash under the volume's name, where the next try would remove it.
func TestWhatCanNotBePutBackIsSetAside(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	with(create("a"))(s, root)
	s.write("swapped in", folderName, trashName, "pvc-a", "file")
	c, err := root.begin(ctx, testID, false)
	must(t, err)
	defer c.end()
	dir, err := root.findDir("a")
	must(t, err)
	defer dir.close()
	trash, err := c.openTrash(ctx, false)
	must(t, err)
	defer func() { must(t, trash.Close()) }()
	err = c.putBack(ctx, dir, &place{dir: trash, name: "pvc-a", shown: "trash/pvc-a"})
	says(t, err, "a was replaced", "misplaced-")
	s.has("x", "a", "file")
	left := entries(s, folderName, trashName)
	if len(left) != 1 || !strings.HasPrefix(left[0].Name(), "misplaced-") {
		t.Fatal(left)
	}
	must(t, root.Delete(ctx, create("a").target()))
	s.has("swapped in", folderName, trashName, left[0].Name(), "file")
}

func entries(s *share, names ...string) []os.DirEntry {
	list, err := os.ReadDir(s.in(names...))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.t.Error(err)
	}
	return list
}
