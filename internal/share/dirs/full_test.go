package dirs

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Each kind of clear refusal of the server, at
// each step that makes something, undoes the rest.
func TestAFullShareUndoesWhatWasMade(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	for _, want := range []Create{create("a"), create("a/b/c"), retained("a/b", "r")} {
		failed := 0
		for inodes := 4; ; inodes++ {
			if inodes > 100 {
				t.Fatal("it never fits")
			}
			s := newShare(t)
			must(t, unix.Mount("tmpfs", s.path, "tmpfs", 0, fmt.Sprintf("nr_inodes=%d", inodes)))
			must(t, os.MkdirAll(s.in(folderName, ownersName), 0o700))
			must(t, os.Symlink(idPrefix+testID, s.in(folderName, idName)))
			before := s.tree()
			_, err := s.open(Options{}).Create(ctx, want)
			got := s.tree()
			must(t, unix.Unmount(s.path, unix.MNT_DETACH))
			if err == nil {
				break
			}
			failed++
			is(t, err, ErrUntouched, unix.ENOSPC)
			isNot(t, err, ErrConflict)
			says(t, err, "no space left on the share")
			if got != before {
				t.Errorf("%d inodes: the share changed from\n%s to\n%s", inodes, before, got)
			}
		}
		if failed < 3 {
			t.Errorf("%s: failed %d times", want.SubDir, failed)
		}
	}
}

func TestAShareThatIsReadOnly(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	s := newShare(t)
	must(t, unix.Mount("tmpfs", s.path, "tmpfs", 0, ""))
	must(t, os.Mkdir(s.in(folderName), 0o700))
	must(t, os.Symlink(idPrefix+testID, s.in(folderName, idName)))
	with(create("ns/a"))(s, s.open(Options{}))
	before := s.tree()
	must(t, unix.Mount("", s.path, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	root := s.open(Options{})
	for name, err := range map[string]error{
		"create":  newCreate(root, create("ns/b")),
		"delete":  root.Delete(ctx, create("ns/a").target()),
		"release": root.Release(ctx, create("ns/a").target()),
		"archive": doArchive(create("ns/a"))(ctx, root),
	} {
		if !errors.Is(err, unix.EROFS) || !errors.Is(err, ErrUntouched) {
			t.Errorf("%s: %v", name, err)
		}
		says(t, err, "read-only")
	}
	must(t, root.Probe(ctx))
	if s.tree() != before {
		t.Error("the share changed")
	}
	must(t, unix.Unmount(s.path, unix.MNT_DETACH))
}
