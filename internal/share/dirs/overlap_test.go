package dirs

import (
	"os"
	"testing"
)

// nest makes the directory sub of s the root of another share, with an id of its own.
func (s *share) nest(sub string) *share {
	s.t.Helper()
	must(s.t, os.MkdirAll(s.in(sub, folderName), 0o700))
	must(s.t, os.Symlink(idPrefix+testID, s.in(sub, folderName, idName)))
	return &share{t: s.t, path: s.in(sub)}
}

// A server exports / and /team, and each share has records of its own. Nobody who
// looks from outside knows what is whose in there.
func TestAnotherShareBelowIsLeftAlone(t *testing.T) {
	for _, inner := range []string{"team", "team/ns", "team/ns/notes"} {
		for name, put := range map[string]func(path string) error{
			"folder": func(path string) error { return os.Mkdir(path, 0o500) },
			"file":   func(path string) error { return os.WriteFile(path, nil, 0o400) },
			"link":   func(path string) error { return os.Symlink("/nowhere", path) },
		} {
			t.Run(inner+" "+name, func(t *testing.T) {
				s := newShare(t)
				used := s.open(Options{}) // which has looked there before
				must(t, newCreate(used, create("team/ns/notes")))
				must(t, newCreate(used, retained("team/ns/kept", "pvc-r")))
				must(t, os.MkdirAll(s.in("team/ns/data"), 0o755))
				must(t, put(s.in(inner, folderName)))
				before := s.tree()
				for _, root := range []*Root{used, s.open(Options{}), used} {
					made := create("team/ns/notes")
					calls := map[string]error{
						"create again": newCreate(root, made), "delete": root.Delete(ctx, made.target()), "archive": doArchive(made)(ctx, root),
					}
					if inner != "team/ns/notes" {
						calls["create"] = newCreate(root, create("team/ns/new"))
						calls["create below"] = newCreate(root, create("team/ns/new/new"))
						calls["retain"] = newCreate(root, retained("team/ns/data", "pvc-2"))
						calls["share"] = newCreate(root, retained("team/ns/kept", "pvc-2"))
					}
					for call, err := range calls {
						is(t, err, ErrConflict, ErrUntouched)
						says(t, err, inner+" is the root of another share: it has a .sharevol of its own")
						if s.tree() != before {
							t.Fatalf("%s: the share changed from\n%s to\n%s", call, before, s.tree())
						}
					}
				}
				must(t, used.Release(ctx, retained("team/ns/kept", "pvc-r").target()))
				must(t, used.Drop(ctx, create("team/ns/notes").target()))
				for _, sub := range []string{"team/ns/notes", "team/ns/kept"} {
					if _, err := os.Stat(s.in(sub)); err != nil || s.recorded(sub) {
						t.Errorf("%s: %v, recorded: %v", sub, err, s.recorded(sub))
					}
				}
			})
		}
	}
}

// Two clusters, or one that names its server in two ways: what one of them has in the
// other's volume directory is not deleted with it.
func TestOverlappingExports(t *testing.T) {
	for sub, inner := range map[string]string{"ns1/notes": "team", "notes": "team/ns1"} {
		for name, leave := range map[string]func(Create) error{"delete": nil, "archive": nil} {
			t.Run(name+" around "+inner, func(t *testing.T) {
				s := newShare(t)
				root := s.open(Options{})
				leave = func(want Create) error {
					if name == "archive" {
						return doArchive(want)(ctx, root)
					}
					return root.Delete(ctx, want.target())
				}
				must(t, newCreate(root, create("team/ns1")))
				nested := s.nest(inner)
				rootOfB := nested.open(Options{})
				must(t, newCreate(rootOfB, other(sub)))
				nested.write("b's", sub, "precious")
				before := s.tree()
				for range 2 {
					is(t, leave(create("team/ns1")), ErrConflict, ErrUntouched)
				}
				if s.tree() != before {
					t.Errorf("the share changed from\n%s to\n%s", before, s.tree())
				}
				// When the inner one is given up, the outer one has its own again.
				must(t, rootOfB.Delete(ctx, other(sub).target()))
				nested.close() // on NFS what is open leaves a name behind
				must(t, os.RemoveAll(nested.in(folderName)))
				must(t, leave(create("team/ns1")))
				s.lacks("team")
			})
		}
	}
}

// Somebody begins to use the inner share before any step of a Create.
func TestAnotherShareThatComesWhileAVolumeIsMade(t *testing.T) {
	_, steps := uninterrupted(t, scenario{run: doCreate(create("a/b/c"))})
	for step := int64(1); step <= steps; step++ {
		s := newShare(t)
		prepare(s, scenario{})
		above := false
		l := &lease{before: func(n int64) {
			if n == step {
				_, err := os.Stat(s.in("a"))
				above = err != nil
				must(t, os.MkdirAll(s.in("a", folderName), 0o700))
			}
		}}
		if err := newCreate(s.open(Options{Fence: l.check}), create("a/b/c")); above {
			is(t, err, ErrConflict, ErrUntouched)
			s.lacks("a", "b")
		}
		if s.recorded("a/b/c") {
			is(t, s.open(Options{}).Delete(ctx, create("a/b/c").target()), ErrConflict, ErrUntouched)
		}
	}
}

// Deeper inside the volume, it is data that somebody has copied there; and so it is
// in what has left its place.
func TestASharevolInsideAVolumeIsData(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	with(create("a"), create("b"), create("c"))(s, root)
	for _, sub := range []string{"a", "b"} {
		must(t, os.MkdirAll(s.in(sub, "copy", folderName, ownersName), 0o700))
	}
	must(t, root.Delete(ctx, create("a").target()))
	must(t, doArchive(create("b"))(ctx, root))
	s.lacks("a")
	s.lacks("b")
	l := &lease{end: 2}
	is(t, s.open(Options{Fence: l.check}).Delete(ctx, create("c").target()), ErrFenced)
	s.write("x", folderName, trashName, "pvc-c", folderName, "id")
	must(t, root.Delete(ctx, create("c").target()))
	if left := entries(s, folderName, trashName); len(left) > 0 {
		t.Error(left)
	}
}

// A volume directory whose mode hides what is in it, even from its owner.
func TestASharevolThatItsOwnerMayNotSee(t *testing.T) {
	s := newShare(t)
	s.asNobody(t)
	root := s.open(Options{})
	for _, sub := range []string{"ns/a", "ns/b"} {
		must(t, newCreate(root, create(sub)))
		s.write("x", sub, "file")
	}
	must(t, os.MkdirAll(s.in("ns/a", folderName), 0o700))
	for _, sub := range []string{"ns/a", "ns/b"} {
		must(t, os.Chmod(s.in(sub), 0))
	}
	for range 2 {
		is(t, root.Delete(ctx, create("ns/a").target()), ErrConflict)
		is(t, doArchive(create("ns/a"))(ctx, root), ErrConflict)
		if got := s.perm("ns/a"); got != 0 {
			t.Errorf("mode %#o", got)
		}
	}
	must(t, root.Delete(ctx, create("ns/b").target()))
	must(t, root.Drop(ctx, create("ns/a").target()))
	must(t, os.Chmod(s.in("ns/a"), 0o700))
	s.has("x", "ns/a", "file")
	s.lacks("ns/b")
}
