package dirs

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
)

// lose takes the record of a volume away: an unlink of the record of an earlier volume
// at that path, which timed out, has taken effect.
func (s *share) lose(sub string) {
	s.t.Helper()
	must(s.t, os.Remove(s.in(folderName, ownersName, recordName(sub))))
}

func TestALateUnlinkOfARecord(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	one, two := create("ns/notes"), create("ns/notes")
	two.Owner = owner("pvc-two")
	must(t, newCreate(root, one))
	must(t, root.Delete(ctx, one.target())) // its last step timed out, and was repeated
	must(t, newCreate(root, two))
	s.write("two's", "ns/notes", "file")
	s.lose("ns/notes")
	before := s.tree()
	stranger := retained("ns/notes", "pvc-stranger")
	stranger.Owner.Cluster = "another"
	for _, want := range []Create{stranger, retained("ns/notes", "pvc-three"), other("ns/notes"), one} {
		err := newCreate(root, want)
		is(t, err, ErrConflict, ErrUntouched)
		if want.Retain {
			says(t, err, "ns/notes belongs to the volume pvc-two")
		}
		if s.tree() != before {
			t.Fatalf("the share changed from\n%s to\n%s", before, s.tree())
		}
	}
	must(t, newCreate(root, two))
	if !s.recorded("ns/notes") {
		t.Error("the record did not come back")
	}
	s.lose("ns/notes")
	for range 2 {
		must(t, root.Delete(ctx, two.target()))
	}
	s.lacks("ns")
	if left := entries(s, folderName, ownersName); len(left) > 0 {
		t.Error(left)
	}
}

// The mark of an unfinished directory says whose it is, too.
func TestALateUnlinkBeforeAnEnd(t *testing.T) {
	s := newShare(t)
	l := &lease{end: 4}
	prepare(s, scenario{})
	is(t, doCreate(create("a"))(ctx, s.open(Options{Fence: l.check})), ErrFenced)
	s.lose("a")
	before := s.tree()
	for _, want := range []Create{other("a"), retained("a", "pvc-r")} {
		err := newCreate(s.open(Options{}), want)
		is(t, err, ErrConflict, ErrUntouched)
		says(t, err, "a belongs to the volume pvc-a")
	}
	if s.tree() != before {
		t.Errorf("the share changed from\n%s to\n%s", before, s.tree())
	}
	must(t, newCreate(s.open(Options{}), create("a")))
	s.finished(create("a"))
}

// losing are calls of which the record may be lost before any step.
var losing = map[string]scenario{
	"create nested":  {run: doCreate(create("a/b/c"))},
	"delete nested":  {before: with(create("a/b/c"), create("a/d")), run: doDelete(create("a/b/c"))},
	"archive nested": {before: with(create("a/b/c"), create("a/d")), run: doArchive(create("a/b/c"))},
	"drop nested":    {before: func(s *share, r *Root) { must(s.t, newCreate(r, create("a/b/c"))) }, run: doDrop(create("a/b/c"))},
	"release nested": {before: with(retained("a/b/c", "pvc-c")), run: doRelease(retained("a/b/c", "pvc-c"))},
}

func doDrop(want Create) func(context.Context, *Root) error {
	return func(ctx context.Context, root *Root) error { return root.Drop(ctx, want.target()) }
}

func doRelease(want Create) func(context.Context, *Root) error {
	return func(ctx context.Context, root *Root) error { return root.Release(ctx, want.target()) }
}

// The record is lost before any step of a call that ends for ever at any later step:
// whoever repeats it comes to the same.
func TestARecordThatIsLostAtAnyStep(t *testing.T) {
	for name, sc := range losing {
		t.Run(name, func(t *testing.T) {
			s, steps := uninterrupted(t, sc)
			want := s.tree()
			for lost := int64(1); lost <= steps; lost++ {
				for end := lost; end <= steps+1; end++ {
					s := newShare(t)
					prepare(s, sc)
					l := &lease{end: end, before: func(step int64) {
						if step == lost {
							_ = os.Remove(s.in(folderName, ownersName, recordName("a/b/c")))
						}
					}}
					first := sc.run(ctx, s.open(Options{Fence: l.check, Workers: 1}))
					if err := sc.run(ctx, s.open(Options{})); err != nil {
						t.Errorf("repeated: %v", err)
					}
					s.close()
					if got := s.tree(); got != want || t.Failed() {
						t.Fatalf("lost at step %d, ended at step %d of %d (%v):\n%s want\n%s", lost, end, steps, first, got, want)
					}
				}
			}
		})
	}
}

// What a crash leaves of a volume without its record is still found and dropped.
func TestALostRecordIsSweptToo(t *testing.T) {
	for _, want := range []Create{create("a/b"), retained("a/b", "pvc-b")} {
		_, steps := uninterrupted(t, scenario{run: doCreate(want)})
		swept := 0
		for end := int64(2); end <= steps+1; end++ {
			s := newShare(t)
			prepare(s, scenario{})
			before := s.tree()
			l := &lease{end: end}
			_ = doCreate(want)(ctx, s.open(Options{Fence: l.check}))
			if got := entries(s, folderName, ownersName); !strings.Contains(fmt.Sprint(got), markName("a/b", want.Owner)) {
				continue
			}
			s.lose("a/b")
			root := s.open(Options{})
			records, err := root.Records(ctx, cluster)
			must(t, err)
			if len(records) != 1 || records[0] != (Record{SubDir: "a/b", Owner: want.Owner, ShareID: testID, Retain: want.Retain}) {
				t.Fatalf("got %v", records)
			}
			if others, err := root.Records(ctx, "another"); err != nil || len(others) > 0 {
				t.Error(others, err)
			}
			for range 2 {
				must(t, root.Drop(ctx, records[0].Target()))
			}
			if got := s.tree(); got != before && !(want.Retain && end > steps) {
				t.Errorf("step %d: the share changed from\n%s to\n%s", end, before, got)
			}
			swept++
		}
		if swept < 2 {
			t.Errorf("swept %d times", swept)
		}
	}
}

// The record is lost while the volume is in the trash, and another one takes the place:
// the rest is removed, and nothing of the other's.
func TestALostRecordOfWhatIsInTheTrash(t *testing.T) {
	for end := int64(2); end < 6; end++ {
		s := newShare(t)
		root := s.open(Options{})
		prepare(s, scenario{before: with(create("a"))})
		l := &lease{end: end}
		is(t, s.open(Options{Fence: l.check, Workers: 1}).Delete(ctx, create("a").target()), ErrFenced)
		s.lose("a")
		must(t, newCreate(root, other("a")))
		s.write("other's", "a", "file")
		for range 2 {
			is(t, root.Delete(ctx, create("a").target()), ErrTaken)
		}
		s.finished(other("a"))
		s.has("other's", "a", "file")
		left := append(entries(s, folderName, trashName), entries(s, folderName, ownersName)...)
		if len(left) != 2 {
			t.Errorf("step %d: left: %v", end, left)
		}
	}
}

// Without its record, the volume's place is another's only if that one made the
// directory that is there.
func TestWhoHasThePlaceOfALostRecord(t *testing.T) {
	for name, leave := range map[string]func(context.Context, *Root) error{"delete": doDelete(create("a")), "archive": doArchive(create("a"))} {
		t.Run(name, func(t *testing.T) {
			s := newShare(t)
			root := s.open(Options{})
			must(t, newCreate(root, create("a")))
			s.write("x", "a", "file")
			s.lose("a")
			l := &lease{end: 2} // another one tries
			is(t, doCreate(other("a"))(ctx, s.open(Options{Fence: l.check})), ErrFenced)
			err := leave(ctx, root)
			is(t, err, ErrConflict, ErrUntouched)
			isNot(t, err, ErrTaken)
			s.has("x", "a", "file")
			must(t, os.RemoveAll(s.in("a")))
			must(t, newCreate(root, other("a")))
			s.write("other's", "a", "file")
			is(t, leave(ctx, root), ErrTaken)
			s.has("other's", "a", "file")
			must(t, root.Delete(ctx, other("a").target()))
			if left := entries(s, folderName, ownersName); len(left) > 0 {
				t.Error(left)
			}
		})
	}
}

// A volume was made below another one while that one's record was lost. It keeps
// what it has until it goes itself.
func TestAVolumeBelowALostRecord(t *testing.T) {
	for name, leave := range map[string]func(context.Context, *Root) error{"delete": doDelete(create("a")), "archive": doArchive(create("a"))} {
		t.Run(name, func(t *testing.T) {
			s := newShare(t)
			root := s.open(Options{})
			must(t, newCreate(root, create("a")))
			s.lose("a")
			must(t, newCreate(root, other("a/inside")))
			s.write("other's", "a", "inside", "file")
			before := s.tree()
			for range 2 {
				for _, call := range []func(context.Context, *Root) error{leave, doCreate(create("a"))} {
					err := call(ctx, root)
					is(t, err, ErrConflict, ErrUntouched)
					says(t, err, "a has the directory of the volume pvc-other in it")
				}
			}
			if s.tree() != before {
				t.Errorf("the share changed from\n%s to\n%s", before, s.tree())
			}
			must(t, root.Delete(ctx, other("a/inside").target()))
			must(t, leave(ctx, root))
			s.lacks("a")
		})
	}
}

// Somebody makes a directory by hand where a volume was that has left: it is not
// taken for the volume, and does not keep it.
func TestWhatComesByHandWhenTheVolumeHasLeft(t *testing.T) {
	for name, leave := range map[string]func(context.Context, *Root) error{"delete": doDelete(create("a")), "archive": doArchive(create("a"))} {
		t.Run(name, func(t *testing.T) {
			sc := scenario{before: with(create("a")), run: leave}
			_, steps := uninterrupted(t, sc)
			s := newShare(t)
			prepare(s, sc)
			stop(s, sc, steps-1) // before the mark and the record go
			s.write("by hand", "a", "file")
			must(t, leave(ctx, s.open(Options{})))
			s.has("by hand", "a", "file")
			if left := entries(s, folderName, ownersName); len(left) > 0 {
				t.Error(left)
			}
		})
	}
}

// Earlier versions made marks without a text.
func TestAMarkWithoutAText(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	must(t, newCreate(root, create("a")))
	mark := s.in(folderName, ownersName, markName("a", owner("pvc-a")))
	must(t, os.Remove(mark))
	must(t, os.Symlink("made", mark))
	s.lose("a")
	if records, err := root.Records(ctx, cluster); err != nil || len(records) > 0 {
		t.Error(records, err)
	}
	err := newCreate(root, retained("a", "pvc-r"))
	is(t, err, ErrConflict, ErrUntouched)
	says(t, err, "a belongs to another volume, by the mark .sharevol/owners/")
	must(t, root.Delete(ctx, create("a").target()))
	s.lacks("a")
	if left := entries(s, folderName, ownersName); len(left) > 0 {
		t.Error(left)
	}
}
