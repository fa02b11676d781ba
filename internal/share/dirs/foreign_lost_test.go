package dirs

import (
	"context"
	"os"
	"testing"
)

var takingAway = map[string]func(context.Context, *Root) error{
	"delete": func(ctx context.Context, root *Root) error { return root.Delete(ctx, foreign("a/b", "one")) },
	"archive": func(ctx context.Context, root *Root) error {
		_, err := root.Archive(ctx, foreign("a/b", "one"))
		return err
	},
}

// The record with which a directory was taken over is lost before any step, and the
// call ends for ever at any later one: whoever repeats it comes to the same.
func TestForeignARecordThatIsLostAtAnyStep(t *testing.T) {
	for name, run := range takingAway {
		t.Run(name, func(t *testing.T) {
			sc := scenario{before: func(s *share, _ *Root) { theirs(s, "a/b"); theirs(s, "a/c") }, run: run}
			s, steps := uninterrupted(t, sc)
			want := s.tree()
			for lost := int64(1); lost <= steps; lost++ {
				for end := lost; end <= steps+1; end++ {
					s := newShare(t)
					prepare(s, sc)
					l := &lease{end: end, before: func(step int64) {
						if step == lost {
							_ = os.Remove(s.in(folderName, ownersName, recordName("a/b")))
						}
					}}
					first := run(ctx, s.open(Options{Fence: l.check, Workers: 1}))
					for range 2 {
						must(t, run(ctx, s.open(Options{})))
					}
					s.close()
					if got := s.tree(); got != want {
						t.Fatalf("lost at step %d, ended at step %d of %d (%v):\n%s want\n%s", lost, end, steps, first, got, want)
					}
				}
			}
		})
	}
}

// Lost records of others speak by their marks: at, above and below the place.
func TestForeignVolumesHurtNobodyWhoseRecordIsLost(t *testing.T) {
	for sub, target := range map[string]string{"a": "a", "a/b": "a", "above": "above/dir"} {
		t.Run(sub, func(t *testing.T) {
			s := newShare(t)
			want := create(sub)
			want.Owner.Cluster = "another"
			must(t, newCreate(s.open(Options{}), want))
			theirs(s, target)
			s.lose(sub)
			before := s.tree()
			for range 2 {
				err := s.open(Options{}).Delete(ctx, foreign(target, "one"))
				is(t, err, ErrConflict, ErrUntouched)
				isNot(t, err, ErrTaken)
				says(t, err, sub+" belongs to the volume "+want.Owner.Volume+" of another cluster")
				_, err = s.open(Options{}).Archive(ctx, foreign(target, "one"))
				is(t, err, ErrConflict, ErrUntouched)
				if s.tree() != before {
					t.Fatalf("the share changed from\n%s to\n%s", before, s.tree())
				}
			}
		})
	}
}

// A crash has left the record, but nobody had looked at what is around it: it is looked
// at again, and the record goes if it should not have been made.
func TestForeignACrashBeforeItLooksAround(t *testing.T) {
	s := newShare(t)
	theirs(s, "a/b")
	root := s.open(Options{})
	must(t, root.Delete(ctx, foreign("none", "one"))) // makes the folders
	text, err := newRecord(kindVolume, "a", owner("one"), false).text()
	must(t, err)
	must(t, newCreate(root, create("a/new")))
	before := s.tree()
	must(t, os.Symlink(text, s.in(folderName, ownersName, recordName("a"))))
	err = root.Delete(ctx, foreign("a", "one"))
	is(t, err, ErrConflict, ErrUntouched)
	says(t, err, "a/new belongs to the volume pvc-new")
	if s.tree() != before {
		t.Errorf("the share changed from\n%s to\n%s", before, s.tree())
	}
	must(t, root.Delete(ctx, create("a/new").target()))
	must(t, root.Delete(ctx, foreign("a", "one")))
	s.lacks("a")
}

// The volume's directory is in the trash, or was. What comes to its place meanwhile is not taken
// for it, and does not keep it.
func TestForeignWhatComesWhenTheVolumeHasLeft(t *testing.T) {
	for _, lost := range []bool{false, true} {
		sc := scenario{before: func(s *share, _ *Root) { theirs(s, "a/b") }, run: takingAway["delete"]}
		_, steps := uninterrupted(t, sc)
		tried := 0
		for end := int64(1); end <= steps; end++ {
			s := newShare(t)
			prepare(s, sc)
			stop(s, sc, end)
			_, stays := os.Lstat(s.in(folderName, ownersName, leftName("a/b", owner("one"))))
			if stays != nil && len(entries(s, folderName, trashName)) == 0 {
				s.close()
				continue
			}
			tried++
			s.write("by hand", "a", "b", "later")
			if lost {
				s.lose("a/b")
			}
			must(t, sc.run(ctx, s.open(Options{})))
			s.has("by hand", "a", "b", "later")
			if left := append(entries(s, folderName, ownersName), entries(s, folderName, trashName)...); len(left) > 0 {
				t.Errorf("step %d, lost %v: left: %v", end, lost, left)
			}
			s.close()
		}
		if tried == 0 {
			t.Error("it was never tried")
		}
	}
}

// Its record is lost while it is in the trash, and another volume takes the place: by the
// mark it is known that nothing of it is there.
func TestForeignWhosePlaceIsTaken(t *testing.T) {
	s := newShare(t)
	theirs(s, "a/b")
	for end := int64(1); ; end++ {
		l := &lease{end: end}
		_ = s.open(Options{Fence: l.check}).Delete(ctx, foreign("a/b", "one"))
		if _, err := os.Lstat(s.in(folderName, ownersName, leftName("a/b", owner("one")))); err == nil {
			break
		}
	}
	s.lose("a/b")
	root := s.open(Options{})
	must(t, newCreate(root, other("a/b")))
	s.write("other's", "a", "b", "new")
	is(t, root.Delete(ctx, foreign("a/b", "one")), ErrTaken)
	s.has("other's", "a", "b", "new")
	if left := entries(s, folderName, trashName); len(left) > 0 {
		t.Error(left)
	}
	// From now on nothing tells it from one that was there first.
	err := root.Delete(ctx, foreign("a/b", "one"))
	is(t, err, ErrConflict, ErrUntouched)
	isNot(t, err, ErrTaken)
}

// What is another share's by its .sharevol is not taken over, nor around it.
func TestForeignVolumeAndAnotherShare(t *testing.T) {
	for what, inner := range map[string]string{"above": "a", "at": "a/b", "hidden": "a/b"} {
		t.Run(what, func(t *testing.T) {
			s := newShare(t)
			asRoot := s.asNobody(t)
			theirs(s, "a/b")
			s.nest(inner)
			if what == "hidden" {
				must(t, os.Chmod(s.in("a/b"), 0))
			}
			for _, run := range takingAway {
				is(t, run(ctx, s.open(Options{})), ErrConflict)
			}
			if left := entries(s, folderName, ownersName); len(left) > 0 {
				t.Errorf("left %v", left)
			}
			if what == "hidden" && s.perm("a/b") != 0 {
				t.Errorf("mode %#o", s.perm("a/b"))
			}
			asRoot(func() { must(t, os.Chmod(s.in("a/b"), 0o700)) })
			s.has("x", "a/b/file")
		})
	}
}

// A mark says that what there was is retained, and others may use it, with or without
// its record.
func TestForeignThatWasRetained(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	must(t, newCreate(root, retained("a/b", "one")))
	s.write("x", "a/b/file")
	for range 2 {
		for _, run := range takingAway {
			err := run(ctx, root)
			is(t, err, ErrConflict, ErrUntouched)
			says(t, err, "was made to be retained")
		}
		s.has("x", "a/b/file")
		if s.recorded("a/b") {
			s.lose("a/b")
		}
	}
}
