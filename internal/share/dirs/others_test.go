package dirs

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

const nobody = 65534

// A file of another user in a directory of another user, with the uid that may not
// touch it: what can be removed is, and the error says what it takes.
func TestWhatBelongsToOthers(t *testing.T) {
	s, remove := newVolume(t)
	s.write("x", "a", "theirs", "file")
	s.write("x", "a", "theirs", "dir", "file")
	s.write("x", "a", "ours", "file")
	if os.Getuid() != 0 { // who can't make what is another user's
		dir, err := os.Open(s.in("a", "theirs"))
		must(t, err)
		tr := &tree{}
		tr.failStep("unlink", "a/theirs/file", dir, "file", unix.EACCES)
		says(t, tr.failure(), "unlink a/theirs/file: permission denied", fmt.Sprintf("acts as uid %d", os.Geteuid()),
			fmt.Sprintf("of uid %d, in a directory of uid %d with mode 0755", os.Getuid(), os.Getuid()))
		must(t, dir.Close())
		must(t, remove(ctx, Options{}))
		return
	}
	s.reachable()
	for _, name := range []string{"", "a", "a/ours", "a/ours/file", folderName, folderName + "/" + ownersName} {
		must(t, os.Lchown(s.in(name), nobody, nobody))
	}
	must(t, os.Chmod(s.in("a", "theirs"), 0o755))
	// The file system sees another uid from this thread, and one worker stays on it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	setfsuid(t, nobody)
	for range 2 {
		err := remove(ctx, Options{Workers: 1})
		is(t, err, unix.EACCES)
		says(t, err, "unlink .sharevol/trash/pvc-a/theirs/file: permission denied", "acts as uid 0",
			"root_squash", "of uid 0, in a directory of uid 0 with mode 0755", "; ")
	}
	setfsuid(t, 0)
	s.lacks(folderName, trashName, "pvc-a", "ours")
	s.has("x", folderName, trashName, "pvc-a", "theirs", "file")
	must(t, remove(ctx, Options{}))
	s.lacks(folderName, trashName, "pvc-a")
}

// A directory on the way that only another user may pass, as one of root's with the
// mode 0700 is on an export with root_squash.
func TestAParentThatMayNotBePassed(t *testing.T) {
	for _, sub := range []string{"private/x", "private/x/y/z"} {
		t.Run(sub, func(t *testing.T) {
			s := newShare(t)
			must(t, os.Mkdir(s.in("private"), 0))
			s.asNobody(t)
			root := s.open(Options{})
			must(t, newCreate(root, create("beside")))
			want := create(sub)
			for _, want := range []Create{want, retained(sub, "pvc-r"), want} {
				err := newCreate(root, want)
				is(t, err, ErrUntouched, unix.EACCES)
				isNot(t, err, ErrConflict)
				says(t, err, "look into private: permission denied", "acts as uid")
				if left := entries(s, folderName, ownersName); len(left) != 2 {
					t.Errorf("left: %v", left)
				}
			}
			// A crash has left its record.
			l := &lease{end: 2}
			is(t, doCreate(want)(ctx, s.open(Options{Fence: l.check})), ErrFenced)
			if !s.recorded(sub) {
				t.Fatal("the crash came too early")
			}
			must(t, root.Drop(ctx, want.target()))
			if left := entries(s, folderName, ownersName); len(left) != 2 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// What was made before stays recorded until it is dropped.
func TestAParentThatMayNotBePassedAnyMore(t *testing.T) {
	s := newShare(t)
	must(t, os.Mkdir(s.in("private"), 0o755))
	must(t, os.Chmod(s.in("private"), 0o777))
	asRoot := s.asNobody(t)
	setMode := func(mode os.FileMode) { asRoot(func() { must(t, os.Chmod(s.in("private"), mode)) }) }
	root := s.open(Options{})
	must(t, newCreate(root, create("private/x")))
	s.write("x", "private/x/file")
	setMode(0)
	t.Cleanup(func() { setMode(0o700) })
	for _, err := range []error{newCreate(root, create("private/x")), root.Delete(ctx, create("private/x").target())} {
		is(t, err, ErrUntouched, unix.EACCES)
	}
	if left := entries(s, folderName, ownersName); len(left) != 2 {
		t.Errorf("left: %v", left)
	}
	must(t, root.Drop(ctx, create("private/x").target()))
	if left := entries(s, folderName, ownersName); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	setMode(0o700)
	asRoot(func() { s.has("x", "private/x/file") })
}

// asNobody lets the file system see a plain user for the rest of a test, whose the
// share is. asRoot does what that user may not; without root, there is only one.
func (s *share) asNobody(t *testing.T) (asRoot func(do func())) {
	t.Helper()
	if os.Getuid() != 0 {
		return func(do func()) { do() }
	}
	s.reachable()
	must(t, os.Lchown(s.path, nobody, nobody))
	must(t, os.Lchown(s.in(folderName), nobody, nobody))
	runtime.LockOSThread()
	setfsuid(t, nobody)
	t.Cleanup(func() {
		setfsuid(t, 0)
		runtime.UnlockOSThread()
	})
	return func(do func()) {
		setfsuid(t, 0)
		do()
		setfsuid(t, nobody)
	}
}

// reachable lets other users come to the share: t.TempDir is for its owner only.
func (s *share) reachable() {
	s.t.Helper()
	for dir := s.in(""); dir != filepath.Clean(os.TempDir()) && dir != "/"; dir = filepath.Dir(dir) {
		must(s.t, os.Chmod(dir, 0o755))
	}
}

func setfsuid(t *testing.T, uid int) {
	t.Helper()
	_, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, uintptr(uid), 0, 0)
	if now, _, _ := unix.RawSyscall(unix.SYS_SETFSUID, ^uintptr(0), 0, 0); int(now) != uid {
		t.Fatalf("fsuid %d", now)
	}
}
