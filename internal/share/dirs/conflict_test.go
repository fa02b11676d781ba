package dirs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestADirectoryThatExistsIsSomebodys(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	must(t, os.Mkdir(s.in("data"), 0o755))
	must(t, os.Mkdir(s.in("empty"), 0o500)) // and not by us
	if os.Getuid() == 0 {
		must(t, os.Chown(s.in("empty"), 4321, 4321))
	} else {
		must(t, os.Chmod(s.in("empty"), 0o555))
	}
	s.write("x", "data", "file")
	before := s.tree()
	for _, sub := range []string{"data", "empty"} {
		for range 2 {
			_, err := root.Create(ctx, create(sub))
			is(t, err, ErrConflict, ErrUntouched)
			says(t, err, sub, "left as it is")
			is(t, root.Delete(ctx, create(sub).target()), ErrConflict)
			_, err = root.Archive(ctx, create(sub).target())
			is(t, err, ErrConflict)
		}
	}
	if s.tree() != before {
		t.Errorf("the share changed from\n%s to\n%s", before, s.tree())
	}
	// A crash between its record and the look at the directory proves nothing.
	l := &lease{end: 2}
	_, err := s.open(Options{Fence: l.check}).Create(ctx, create("data"))
	is(t, err, ErrFenced)
	if !s.recorded("data") {
		t.Fatal("the crash came too early")
	}
	is(t, root.Delete(ctx, create("data").target()), ErrConflict)
	_, err = root.Create(ctx, create("data"))
	is(t, err, ErrConflict, ErrUntouched)
	if s.tree() != before {
		t.Errorf("the share changed from\n%s to\n%s", before, s.tree())
	}
}

func TestRetainedVolumesUseWhatIsThere(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	must(t, os.Mkdir(s.in("data"), 0o755))
	must(t, os.Chmod(s.in("data"), 0o751))
	s.write("x", "data", "file")
	before := s.tree()
	for _, volume := range []string{"pvc-1", "pvc-2", "pvc-1", "pvc-3"} { // shared, as all are retained
		got, err := root.Create(ctx, retained("data", volume))
		must(t, err)
		if got.Made {
			t.Errorf("%s: made", volume)
		}
	}
	_, err := root.Create(ctx, create("data"))
	is(t, err, ErrConflict)
	says(t, err, "pvc-1")
	// One that was made for its first volume may be others' by now.
	must(t, newCreate(root, retained("made", "pvc-1")))
	is(t, root.Delete(ctx, retained("made", "pvc-1").target()), ErrConflict, ErrUntouched)
	is(t, doArchive(retained("made", "pvc-1"))(ctx, root), ErrConflict, ErrUntouched)
	must(t, root.Release(ctx, retained("made", "pvc-1").target()))
	must(t, os.Remove(s.in("made")))
	for _, volume := range []string{"pvc-2", "pvc-1", "pvc-1", "pvc-3"} {
		is(t, root.Delete(ctx, retained("data", volume).target()), ErrConflict, ErrUntouched)
		must(t, root.Release(ctx, retained("data", volume).target()))
	}
	if s.tree() != before {
		t.Errorf("the share changed from\n%s to\n%s", before, s.tree())
	}
	_, err = root.Create(ctx, create("data"))
	is(t, err, ErrConflict)
}

func TestOwnersAreToldApart(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	_, err := root.Create(ctx, create("a"))
	must(t, err)
	before := s.tree()
	elsewhere := create("a")
	elsewhere.Owner.Cluster = "another"
	retain := retained("a", "pvc-r")
	for _, want := range []Create{elsewhere, retain, {SubDir: "a", Owner: owner("pvc-2"), UID: -1, GID: -1}} {
		_, err := root.Create(ctx, want)
		is(t, err, ErrConflict, ErrUntouched)
		says(t, err, "a belongs to the volume pvc-a")
		if strings.Contains(err.Error(), "another cluster") != (want.Owner.Cluster == "another") {
			t.Error(err)
		}
		err = root.Delete(ctx, want.target())
		is(t, err, ErrTaken, ErrConflict, ErrUntouched)
		says(t, err, "a belongs to the volume pvc-a")
		is(t, doArchive(want)(ctx, root), ErrTaken, ErrConflict, ErrUntouched)
		must(t, root.Drop(ctx, want.target())) // nothing of its own
		must(t, root.Release(ctx, want.target()))
	}
	if s.tree() != before {
		t.Errorf("the share changed from\n%s to\n%s", before, s.tree())
	}
}

// Only another volume's record says that the volume had come to its end before.
func TestNothingElseIsTaken(t *testing.T) {
	for name, put := range map[string]func(s *share, root *Root){
		"no record": func(s *share, _ *Root) { must(s.t, os.Mkdir(s.in("a"), 0o755)) },
		"garbage":   func(s *share, _ *Root) { must(s.t, os.Symlink("x", s.in(folderName, ownersName, recordName("a")))) },
		"retained":  func(s *share, root *Root) { must(s.t, newCreate(root, retained("a", "pvc-a"))) },
		"in the trash": func(s *share, root *Root) {
			must(s.t, newCreate(root, other("a")))
			s.write("x", folderName, trashName, "pvc-a", "file")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShare(t)
			root := s.open(Options{})
			must(t, os.Mkdir(s.in(folderName, ownersName), 0o700))
			put(s, root)
			before := s.tree()
			err := root.Delete(ctx, create("a").target())
			is(t, err, ErrConflict, ErrUntouched)
			isNot(t, err, ErrTaken)
			if s.tree() != before {
				t.Errorf("the share changed from\n%s to\n%s", before, s.tree())
			}
		})
	}
}

func TestVolumesDoNotNest(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	for _, sub := range []string{"a/b/c", "x"} {
		_, err := root.Create(ctx, create(sub))
		must(t, err)
	}
	must(t, os.MkdirAll(s.in("x", "made", "by-a-pod"), 0o755))
	before := s.tree()
	for _, want := range []Create{
		create("a"), create("a/b"), retained("a", "r"), retained("a/b", "r"), // above one
		create("a/b/c/d"), create("x/y"), create("x/made/y"), retained("x/made/by-a-pod", "r"), // below one
	} {
		_, err := root.Create(ctx, want)
		is(t, err, ErrConflict, ErrUntouched)
		if s.tree() != before {
			t.Errorf("%s: the share changed from\n%s to\n%s", want.SubDir, before, s.tree())
		}
	}
}

// A volume came above one that is finished, as its parent had no record. Creating the
// lower one again is a conflict, and takes nothing from it.
func TestAConflictUndoesNothingOfAnEarlierCall(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	must(t, newCreate(root, create("a/b")))
	must(t, os.Remove(s.in(folderName, ownersName, parentName("a"))))
	must(t, newCreate(root, retained("a", "pvc-r")))
	before := s.tree()
	is(t, newCreate(root, create("a/b")), ErrConflict, ErrUntouched)
	if s.tree() != before {
		t.Errorf("the share changed from\n%s to\n%s", before, s.tree())
	}
	must(t, root.Delete(ctx, create("a/b").target()))
	s.lacks("a", "b")
}

// A record of a parent that was left over does not make a volume one.
func TestAnEmptyVolumeIsNoParent(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	must(t, newCreate(root, create("a")))
	text, err := newRecord(kindParent, "a", Owner{}, false).text()
	must(t, err)
	must(t, os.Symlink(text, s.in(folderName, ownersName, parentName("a"))))
	before := s.tree()
	is(t, newCreate(root, create("a/b")), ErrConflict, ErrUntouched)
	if s.tree() != before {
		t.Errorf("the share changed from\n%s to\n%s", before, s.tree())
	}
	must(t, root.Delete(ctx, create("a").target()))
	if left := entries(s, folderName, ownersName); len(left) > 0 {
		t.Error(left)
	}
}

// A class that retained, and does not any more when the claim is tried again.
func TestAClassThatChangedItsMind(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	want := create("a")
	want.Retain = true
	_, err := root.Create(ctx, want)
	must(t, err)
	want.Retain = false
	_, err = root.Create(ctx, want)
	is(t, err, ErrConflict)
	must(t, os.Remove(s.in("a")))
	_, err = root.Create(ctx, want)
	must(t, err)
	s.lose("a") // and what comes back is no more retained
	must(t, root.Delete(ctx, want.target()))
	_, err = root.Create(ctx, want)
	must(t, err)
	want.Retain = true
	_, err = root.Create(ctx, want)
	must(t, err)
}

// A crash leaves a parent, or only its record, with nothing in it.
func TestAParentThatIsLeftOverMakesRoom(t *testing.T) {
	made := 0
	for step := int64(2); ; step++ {
		s := newShare(t)
		root := s.open(Options{})
		l := &lease{end: step}
		if _, err := s.open(Options{Fence: l.check}).Create(ctx, create("a/b")); err == nil {
			break
		}
		_, inTheWay := os.Lstat(s.in("a", "b"))
		_, err := root.Create(ctx, create("a"))
		if inTheWay == nil {
			is(t, err, ErrConflict)
			continue
		}
		must(t, err)
		made++
		must(t, root.Drop(ctx, create("a/b").target()))
		must(t, root.Delete(ctx, create("a").target()))
		s.lacks("a")
	}
	if made < 4 {
		t.Errorf("made room %d times", made)
	}
}

func TestLinksAndFilesInTheWayAreLeftAlone(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "precious"), []byte("x"), 0o600))
	must(t, os.Mkdir(filepath.Join(outside, "sub"), 0o755))
	must(t, os.Chmod(outside, 0o711))
	must(t, os.Symlink(outside, s.in("link")))
	must(t, os.Symlink(outside+"/nowhere", s.in("dangling")))
	s.write("x", "file")
	must(t, unix.Mkfifo(s.in("fifo"), 0o600))
	before := s.tree()
	for _, name := range []string{"link", "dangling", "file", "fifo", "link/sub", "link/new", "file/x", "dangling/x/y"} {
		for _, want := range []Create{create(name), retained(name, "pvc-r")} {
			_, err := root.Create(ctx, want)
			is(t, err, ErrConflict, ErrUntouched)
			says(t, err, "is a link or a file, not a directory: left alone")
			is(t, root.Delete(ctx, want.target()), ErrConflict)
			_, err = root.Archive(ctx, want.target())
			is(t, err, ErrConflict)
			must(t, root.Drop(ctx, want.target()))
		}
	}
	if s.tree() != before {
		t.Errorf("the share changed from\n%s to\n%s", before, s.tree())
	}
	if info, err := os.Stat(outside); err != nil || info.Mode().Perm() != 0o711 {
		t.Error(info.Mode(), err)
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 2 {
		t.Error(entries, err)
	}
}
