package dirs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// leaveCalls are the calls that must never take one share for another, nor a missing
// directory on the wrong share for a volume that is gone.
func leaveCalls(root *Root, want Create) map[string]error {
	_, archive := root.Archive(ctx, want.target())
	_, create := root.Create(ctx, want)
	return map[string]error{
		"create": create, "delete": root.Delete(ctx, want.target()), "archive": archive,
		"release": root.Release(ctx, want.target()), "drop": root.Drop(ctx, want.target()),
	}
}

func TestAnotherShareInItsPlace(t *testing.T) {
	for name, replace := range map[string]func(s *share){
		"another id": func(s *share) {
			must(s.t, os.Remove(s.in(folderName, idName)))
			must(s.t, os.Symlink(idPrefix+otherID, s.in(folderName, idName)))
		},
		"another share": func(s *share) {
			other := newShare(s.t)
			must(s.t, os.Remove(other.in(folderName, idName)))
			must(s.t, os.Symlink(idPrefix+otherID, other.in(folderName, idName)))
			must(s.t, os.Rename(s.in(folderName), filepath.Join(s.t.TempDir(), "away")))
			must(s.t, os.Rename(other.in(folderName), s.in(folderName)))
		},
		"no id": func(s *share) { must(s.t, os.Remove(s.in(folderName, idName))) },
		// The export is missing, and the server shows the empty directory below it.
		"nothing at all": func(s *share) {
			must(s.t, os.Rename(s.in(folderName), filepath.Join(s.t.TempDir(), "away")))
			must(s.t, os.RemoveAll(s.in("a")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShare(t)
			used := s.open(Options{}) // has the old one open
			must(t, newCreate(used, create("a")))
			s.write("x", "a", "file")
			replace(s)
			before := s.tree()
			for _, root := range []*Root{used, s.open(Options{}), used} {
				for call, err := range leaveCalls(root, create("a")) {
					if !errors.Is(err, ErrOtherShare) || !errors.Is(err, ErrUntouched) || errors.Is(err, ErrConflict) {
						t.Errorf("%s: %v", call, err)
					}
					says(t, err, testID, "another file system seems to be exported in its place")
				}
			}
			if s.tree() != before {
				t.Errorf("the share changed from\n%s to\n%s", before, s.tree())
			}
		})
	}
}

func TestARequestForAnotherShare(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	with(create("a"))(s, root)
	want := create("a")
	want.ShareID = otherID
	target := Target{SubDir: want.SubDir, Owner: want.Owner, ShareID: otherID}
	for _, err := range []error{newCreate(root, want), root.Delete(ctx, target), root.Release(ctx, target), root.Drop(ctx, target)} {
		is(t, err, ErrOtherShare, ErrUntouched)
		says(t, err, testID, otherID)
	}
	s.has("x", "a", "file")
	must(t, os.Chmod(s.in("a", "closed"), 0o700))
}

// The share comes back as it was, perhaps from a backup.
func TestTheSameShareAgain(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	must(t, newCreate(root, create("a")))
	away := filepath.Join(t.TempDir(), "away")
	must(t, os.Rename(s.in(folderName), away))
	is(t, newCreate(root, create("b")), ErrOtherShare)
	must(t, os.Rename(away, s.in(folderName)))
	must(t, newCreate(root, create("b")))
	// Only the id, made anew as a restore makes it.
	must(t, os.Remove(s.in(folderName, idName)))
	must(t, os.Symlink(idPrefix+testID, s.in(folderName, idName)))
	must(t, os.RemoveAll(s.in(folderName, trashName)))
	must(t, root.Delete(ctx, create("a").target()))
	must(t, os.Rename(s.in(folderName, ownersName), away))
	must(t, newCreate(root, create("c")))
	if !s.recorded("c") {
		t.Error("the record went to the folder that is away")
	}
}

func TestTheFolderIsNoLink(t *testing.T) {
	for _, name := range []string{folderName, folderName + "/" + ownersName, folderName + "/" + trashName} {
		for kind, put := range map[string]func(s *share, path string){
			"link": func(s *share, path string) {
				must(s.t, os.Symlink(filepath.Join(filepath.Dir(s.path), "elsewhere"), path))
			},
			"file": func(s *share, path string) { must(s.t, os.WriteFile(path, nil, 0o600)) },
		} {
			t.Run(name+" "+kind, func(t *testing.T) {
				s := newShare(t)
				with(create("a"))(s, s.open(Options{}))
				must(t, os.MkdirAll(s.in(folderName, trashName), 0o700))
				elsewhere := filepath.Join(filepath.Dir(s.path), "elsewhere")
				must(t, os.Rename(s.in(name), elsewhere))
				put(s, s.in(name))
				before := s.tree()
				root := s.open(Options{})
				err := root.Delete(ctx, create("a").target())
				is(t, err, ErrUntouched)
				says(t, err, name+" is a link or a file, not the folder that sharevol keeps on a share: left alone")
				if filepath.Base(name) != trashName {
					is(t, newCreate(root, create("b")), ErrUntouched)
					_, err = root.Records(ctx, cluster)
					is(t, err, ErrUntouched)
				}
				if s.tree() != before {
					t.Errorf("the share changed from\n%s to\n%s", before, s.tree())
				}
				must(t, os.Chmod(s.in("a", "closed"), 0o700))
			})
		}
	}
}

func TestAnIDOfAnotherForm(t *testing.T) {
	for name, put := range map[string]func(s *share, path string){
		"file":      func(s *share, path string) { must(s.t, os.WriteFile(path, []byte(idPrefix+testID), 0o600)) },
		"directory": func(s *share, path string) { must(s.t, os.Mkdir(path, 0o700)) },
		"short":     func(s *share, path string) { must(s.t, os.Symlink(idPrefix+"ABC", path)) },
		"path":      func(s *share, path string) { must(s.t, os.Symlink("../../data", path)) },
		"long":      func(s *share, path string) { must(s.t, os.Symlink(idPrefix+testID+"A", path)) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newShare(t)
			must(t, os.Remove(s.in(folderName, idName)))
			put(s, s.in(folderName, idName))
			before := s.tree()
			anyShare := create("a")
			anyShare.ShareID = ""
			root := s.open(Options{})
			for _, err := range []error{newCreate(root, anyShare), newCreate(root, create("a")), root.Delete(ctx, create("a").target())} {
				is(t, err, ErrUntouched)
				isNot(t, err, ErrOtherShare)
				says(t, err, ".sharevol/id")
			}
			if s.tree() != before {
				t.Errorf("the share changed from\n%s to\n%s", before, s.tree())
			}
		})
	}
}

func TestATargetHasTheIDOfItsShare(t *testing.T) {
	s := newShare(t)
	with(create("a"))(s, s.open(Options{}))
	target := create("a").target()
	target.ShareID = ""
	root := s.open(Options{})
	_, archive := root.Archive(ctx, target)
	for _, err := range []error{archive, root.Delete(ctx, target), root.Release(ctx, target), root.Drop(ctx, target)} {
		is(t, err, ErrUntouched)
		says(t, err, "the id of its share is not known")
	}
	s.has("x", "a", "file")
	must(t, os.Chmod(s.in("a", "closed"), 0o700))
}

func TestRecords(t *testing.T) {
	s := newShare(t)
	must(t, os.RemoveAll(s.in(folderName)))
	root := s.open(Options{})
	if got, err := root.Records(ctx, cluster); err != nil || len(got) > 0 {
		t.Errorf("%v, %v", got, err)
	}
	s.lacks(folderName)
	any := func(want Create) Create {
		want.ShareID = ""
		return want
	}
	var want []Record
	for _, sub := range []string{"a", "ns/b", "ns/<&>\"c\"", strings.Repeat("x", 255) + "/" + strings.Repeat("y", 251)} {
		created, err := root.Create(ctx, any(create(sub)))
		must(t, err)
		want = append(want, Record{SubDir: create(sub).SubDir, Owner: create(sub).Owner, ShareID: created.ShareID})
	}
	created, err := root.Create(ctx, any(retained("r", "pvc-r")))
	must(t, err)
	want = append(want, Record{SubDir: "r", Owner: owner("pvc-r"), ShareID: created.ShareID, Retain: true})
	must(t, newCreate(root, any(other("z"))))
	must(t, os.WriteFile(s.in(folderName, ownersName, recordName("file")), nil, 0o600))
	got, err := root.Records(ctx, cluster)
	must(t, err)
	order := func(a, b Record) int { return strings.Compare(string(a.SubDir), string(b.SubDir)) }
	slices.SortFunc(got, order)
	slices.SortFunc(want, order)
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, r := range got {
		must(t, root.Drop(ctx, r.Target()))
	}
	got, err = root.Records(ctx, cluster)
	if err != nil || len(got) > 0 {
		t.Errorf("%v, %v", got, err)
	}
	if left := entries(s, "."); len(left) != 3 { // .sharevol, r, z
		t.Error(left)
	}
}

func TestThousandsOfRecords(t *testing.T) {
	s := newShare(t)
	must(t, os.Mkdir(s.in(folderName, ownersName), 0o700))
	for i := range 2500 {
		sub := strings.Repeat("x", i%200+1) + string(rune('a'+i%26)) + strings.Repeat("y", i/200)
		text, err := newRecord(kindVolume, sub, owner("pvc"), false).text()
		must(t, err)
		if err := os.Symlink(text, s.in(folderName, ownersName, recordName(sub))); err != nil && !errors.Is(err, os.ErrExist) {
			t.Fatal(err)
		}
	}
	want := len(entries(s, folderName, ownersName))
	if got, err := s.open(Options{}).Records(ctx, cluster); err != nil || len(got) != want {
		t.Errorf("%d, %v; want %d", len(got), err, want)
	}
}
