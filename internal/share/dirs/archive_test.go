package dirs

import (
	"os"
	"strings"
	"testing"
)

// csi-driver-nfs #595, #673, #729: archiving fails for nested paths, or collides.
func TestArchive(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	with(create("ns/claim/a"), create("ns/claim/b"), create("flat"))(s, root)
	for range 2 {
		for sub, want := range map[string]string{
			"ns/claim/a": "archived-pvc-a/ns/claim/a", "ns/claim/b": "archived-pvc-b/ns/claim/b", "flat": "archived-pvc-flat/flat",
		} {
			got, err := root.Archive(ctx, create(sub).target())
			must(t, err)
			if got != want {
				t.Errorf("%s: %s", sub, got)
			}
			s.has("y", want, "dir", "deep", "file")
			s.lacks(sub)
			if got := s.perm(want); got != 0o777 {
				t.Errorf("%s: mode %#o", want, got)
			}
		}
	}
	s.lacks("ns")
	if left := entries(s, folderName, ownersName); len(left) > 0 {
		t.Error(left)
	}
	// The path is free, and the next volume's archive is another.
	again := create("flat")
	again.Owner.Volume = "pvc-2"
	must(t, newCreate(root, again))
	got, err := root.Archive(ctx, again.target())
	if err != nil || got != "archived-pvc-2/flat" {
		t.Error(got, err)
	}
}

func TestNoArchiveIsOverwritten(t *testing.T) {
	for name, there := range map[string]func(s *share){
		"archive":         func(s *share) { s.write("older", "archived-pvc-a", "ns", "a", "file") },
		"empty archive":   func(s *share) { must(s.t, os.MkdirAll(s.in("archived-pvc-a", "ns", "a"), 0o755)) },
		"something in it": func(s *share) { s.write("older", "archived-pvc-a", "ns", "file") },
		"file":            func(s *share) { s.write("older", "archived-pvc-a") },
		"link":            func(s *share) { must(s.t, os.Symlink("/tmp", s.in("archived-pvc-a"))) },
		"link in it": func(s *share) {
			must(s.t, os.Mkdir(s.in("archived-pvc-a"), 0o755))
			must(s.t, os.Symlink("/tmp", s.in("archived-pvc-a", "ns")))
		},
		"another volume": func(s *share) { must(s.t, newCreate(s.open(Options{}), other("archived-pvc-a"))) },
		"volumes in it":  func(s *share) { must(s.t, newCreate(s.open(Options{}), other("archived-pvc-a/ns/a"))) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newShare(t)
			root := s.open(Options{})
			with(create("ns/a"))(s, root)
			there(s)
			before := s.tree()
			for range 2 {
				_, err := root.Archive(ctx, create("ns/a").target())
				is(t, err, ErrConflict, ErrUntouched)
				says(t, err, "archived-pvc-a")
			}
			if s.tree() != before {
				t.Errorf("the share changed from\n%s to\n%s", before, s.tree())
			}
			must(t, os.Chmod(s.in("ns", "a", "closed"), 0o700))
		})
	}
}

// A volume below the archive's directory is being made, or was until a crash.
func TestAnArchiveWhereAParentIs(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	with(create("a"))(s, root)
	text, err := newRecord(kindParent, "archived-pvc-a", Owner{}, false).text()
	must(t, err)
	must(t, os.Symlink(text, s.in(folderName, ownersName, parentName("archived-pvc-a"))))
	s.write("x", "archived-pvc-a", "being made", "file")
	is(t, doArchive(create("a"))(ctx, root), ErrConflict, ErrUntouched)
	must(t, os.RemoveAll(s.in("archived-pvc-a", "being made")))
	must(t, doArchive(create("a"))(ctx, root))
	s.has("x", "archived-pvc-a", "a", "file")
	if left := entries(s, folderName, ownersName); len(left) > 0 {
		t.Error(left)
	}
	must(t, os.Chmod(s.in("archived-pvc-a", "a", "closed"), 0o700))
}

func TestArchiveOfWhatIsGone(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	must(t, newCreate(root, create("ns/a")))
	must(t, os.RemoveAll(s.in("ns")))
	for range 2 {
		got, err := root.Archive(ctx, create("ns/a").target())
		if err != nil || got != "" {
			t.Errorf("%q, %v", got, err)
		}
	}
	s.lacks("archived-pvc-a")
	if left := entries(s, folderName, ownersName); len(left) > 0 {
		t.Error(left)
	}
}

func TestArchiveOfLongNames(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	want := create(strings.Repeat("x", 253) + "/" + strings.Repeat("y", 253))
	want.Owner.Volume = strings.Repeat("p", maxName-len("archived-"))
	must(t, newCreate(root, want))
	_, err := root.Archive(ctx, want.target())
	must(t, err)
	want.Owner.Volume += "p"
	must(t, newCreate(root, want))
	_, err = root.Archive(ctx, want.target())
	is(t, err, ErrUntouched)
	must(t, root.Delete(ctx, want.target()))
}
