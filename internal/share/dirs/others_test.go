package dirs

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

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
	const nobody = 65534
	for dir := s.in(""); dir != filepath.Clean(os.TempDir()) && dir != "/"; dir = filepath.Dir(dir) {
		must(t, os.Chmod(dir, 0o755)) // t.TempDir is for its owner only
	}
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

func setfsuid(t *testing.T, uid int) {
	t.Helper()
	_, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, uintptr(uid), 0, 0)
	if now, _, _ := unix.RawSyscall(unix.SYS_SETFSUID, ^uintptr(0), 0, 0); int(now) != uid {
		t.Fatalf("fsuid %d", now)
	}
}
