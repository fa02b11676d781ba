package dirs

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Another file system inside a volume is not the volume's to empty. All around it
// is removed.
func TestAnotherFileSystemInsideAVolume(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	s, remove := newVolume(t)
	s.write("x", "a", "dir", "file")
	s.write("x", "a", "file")
	must(t, os.MkdirAll(s.in("a", "dir", "mounted"), 0))
	must(t, os.WriteFile(s.in("a", "busy"), nil, 0o600))
	must(t, unix.Mount("tmpfs", s.in("a", "dir", "mounted"), "tmpfs", 0, "mode=0"))
	must(t, unix.Mount(s.in("a", "file"), s.in("a", "busy"), "", unix.MS_BIND, ""))
	s.write("precious", "a", "dir", "mounted", "file")
	err := remove(ctx, Options{})
	trash := []string{folderName, trashName, "pvc-a"}
	says(t, err, "another file system inside the volume: not removed", "mounted")
	s.has("precious", append(trash, "dir", "mounted", "file")...)
	if got := s.perm(append(trash, "dir", "mounted")...); got != 0 {
		t.Errorf("its mode is %#o", got)
	}
	s.lacks(append(trash, "dir", "file")...)
	must(t, unix.Unmount(s.in(append(trash, "dir", "mounted")...), unix.MNT_DETACH))
	_ = unix.Unmount(s.in(append(trash, "busy")...), unix.MNT_DETACH) // an unlink has ended it
	must(t, remove(ctx, Options{}))
	s.lacks(trash...)
}

// The volume directory has become the root of another file system.
func TestAnotherFileSystemInPlaceOfAVolume(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	s, remove := newVolume(t)
	must(t, unix.Mount("tmpfs", s.in("a"), "tmpfs", 0, ""))
	s.write("precious", "a", "file")
	is(t, remove(ctx, Options{}), ErrConflict, ErrUntouched)
	_, err := s.open(Options{}).Archive(ctx, create("a").target())
	is(t, err, ErrConflict, ErrUntouched)
	must(t, s.open(Options{}).Drop(ctx, create("a").target()))
	s.has("precious", "a", "file")
	// It is somebody's, which only a retained volume may use.
	is(t, newCreate(s.open(Options{}), create("a")), ErrConflict)
	must(t, newCreate(s.open(Options{}), retained("a", "pvc-r")))
	must(t, unix.Unmount(s.in("a"), unix.MNT_DETACH))
}

// A volume on another file system than .sharevol is removed where it is, and can't
// be archived.
func TestAVolumeOnAnotherFileSystem(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	s := newShare(t)
	must(t, os.Mkdir(s.in("other"), 0o755))
	must(t, unix.Mount("tmpfs", s.in("other"), "tmpfs", 0, ""))
	want := create("other/ns/a")
	with(want)(s, s.open(Options{}))
	must(t, os.MkdirAll(s.in(folderName, trashName), 0o700))
	before := s.tree()
	_, err := s.open(Options{}).Archive(ctx, want.target())
	is(t, err, unix.EXDEV, ErrUntouched)
	says(t, err, "other/ns/a can't be archived, as it is on another file system than the share root")
	if s.tree() != before {
		t.Errorf("the share changed from\n%s to\n%s", before, s.tree())
	}
	for end := int64(2); ; end++ {
		l := &lease{end: end}
		err := s.open(Options{Fence: l.check, Workers: 1}).Delete(ctx, want.target())
		if err == nil {
			break
		}
		is(t, err, ErrFenced)
	}
	s.lacks("other", "ns")
	if got := entries(s, folderName, ownersName); len(got) > 0 {
		t.Error(got)
	}
	must(t, unix.Unmount(s.in("other"), unix.MNT_DETACH))
}
