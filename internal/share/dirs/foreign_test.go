package dirs

import (
	"context"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/volume"
)

// foreign is the volume called name of another provisioner, whose directory is sub.
func foreign(sub, name string) Target {
	return Target{SubDir: volume.SubDir(sub), Owner: owner(name), Foreign: true}
}

// theirs makes a directory with a small tree in it, as another provisioner would.
func theirs(s *share, sub string) {
	s.t.Helper()
	s.write("x", sub, "file")
	s.write("y", sub, "dir", "deep", "file")
	must(s.t, os.Symlink("/", s.in(sub, "link")))
}

// bare is a share that sharevol has never used.
func bare(t *testing.T) *share {
	t.Helper()
	s := newShare(t)
	must(t, os.RemoveAll(s.in(folderName)))
	return s
}

func TestForeignVolumesAreDeletedAndArchived(t *testing.T) {
	for name, s := range map[string]*share{"on a share of ours": newShare(t), "on a bare share": bare(t)} {
		t.Run(name, func(t *testing.T) {
			root := s.open(Options{})
			// nfs-subdir #139: another directory of the same base name; #127: a nested one.
			for _, sub := range []string{"a/b/pvc-1", "pvc-1", "c/pvc-1", "pvc-2"} {
				theirs(s, sub)
			}
			must(t, root.Delete(ctx, foreign("a/b/pvc-1", "one")))
			s.lacks("a", "b", "pvc-1")
			for _, stays := range []string{"pvc-1", "c/pvc-1", "pvc-2"} {
				s.has("x", stays, "file")
			}
			if _, err := os.Stat(s.in("a", "b")); err != nil {
				t.Errorf("a parent that is not ours: %v", err)
			}
			archive, err := root.Archive(ctx, foreign("c/pvc-1", "two"))
			if must(t, err); archive != "archived-two/c/pvc-1" {
				t.Errorf("archived as %q", archive)
			}
			s.has("x", archive, "file")
			s.lacks("c", "pvc-1")
			for range 2 { // a repeated call finds nothing
				must(t, root.Delete(ctx, foreign("a/b/pvc-1", "one")))
				_, err := root.Archive(ctx, foreign("c/pvc-1", "two"))
				must(t, err)
			}
			if entries, err := os.ReadDir(s.in(folderName, ownersName)); err != nil || len(entries) > 0 {
				t.Error(entries, err)
			}
		})
	}
}

// With no id on the share, or another one than it should have, a missing directory is
// no success: an empty file system may be exported in its place.
func TestForeignVolumeThatIsMissing(t *testing.T) {
	s := bare(t)
	theirs(s, "other")
	before := s.tree()
	for _, sub := range []string{"pvc-1", "a/pvc-1", "other/pvc-1"} {
		err := s.open(Options{}).Delete(ctx, foreign(sub, "one"))
		is(t, err, ErrOtherShare, ErrUntouched)
		says(t, err, "is not there, and the share has no id")
		_, err = s.open(Options{}).Archive(ctx, foreign(sub, "one"))
		is(t, err, ErrOtherShare, ErrUntouched)
	}
	if s.tree() != before {
		t.Errorf("the share changed:\n%s", s.tree())
	}
	known := foreign("pvc-1", "one")
	known.ShareID = testID
	is(t, s.open(Options{}).Delete(ctx, known), ErrOtherShare, ErrUntouched)
	s = newShare(t)
	must(t, s.open(Options{}).Delete(ctx, known))
	must(t, s.open(Options{}).Delete(ctx, foreign("pvc-1", "one")))
	theirs(s, "pvc-1")
	known.ShareID = otherID
	is(t, s.open(Options{}).Delete(ctx, known), ErrOtherShare, ErrUntouched)
	s.has("x", "pvc-1", "file")
}

// What is recorded for a volume, at, above or below the place, and what is no
// directory, is left alone, and so is all else.
func TestForeignVolumesHurtNobody(t *testing.T) {
	elsewhere := func(sub string) Create {
		want := create(sub)
		want.Owner.Cluster = "another"
		return want
	}
	linked := func(s *share, _ *Root) { theirs(s, "v"); must(s.t, os.Symlink("v", s.in("a"))) }
	there := func(s *share, _ *Root) { theirs(s, "a") }
	cases := map[string]struct {
		before func(*share, *Root)
		target Target
		says   string
	}{
		"another volume's":  {with(create("a")), foreign("a", "one"), "belongs to the volume pvc-a"},
		"another cluster's": {with(elsewhere("a")), foreign("a", "pvc-a"), "of another cluster"},
		"retained":          {with(retained("a", "one")), foreign("a", "one"), "was made to be retained"},
		"below a volume":    {with(create("a")), foreign("a/dir", "one"), "a belongs to the volume pvc-a"},
		"above a volume":    {with(create("a/b/c")), foreign("a", "one"), "a/b/c belongs to the volume pvc-c"},
		"above another cluster's": {func(s *share, r *Root) {
			theirs(s, "a")
			with(elsewhere("a/c"))(s, r)
		}, foreign("a", "one"), "of another cluster"},
		"link":       {linked, foreign("a", "one"), "a link or a file"},
		"below link": {linked, foreign("a/dir", "one"), "a link or a file"},
		"file":       {func(s *share, _ *Root) { must(s.t, os.WriteFile(s.in("a"), nil, 0o600)) }, foreign("a", "one"), "a link or a file"},
		"trash of another": {func(s *share, _ *Root) {
			theirs(s, "a")
			s.write("x", folderName, trashName, "one", "file")
		}, foreign("a", "one"), "of another volume of this name"},
		"up":         {there, foreign("../a", "one"), `".." path component`},
		"empty":      {there, foreign("", "one"), "must not be empty"},
		"root":       {there, foreign("/", "one"), "relative"},
		"backslash":  {there, foreign(`a\..`, "one"), "backslash"},
		"our folder": {with(create("a")), foreign(folderName+"/"+ownersName, "one"), "sharevol keeps for itself"},
		"their name": {there, foreign("a", "../one"), "no name of a PersistentVolume"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := newShare(t)
			c.before(s, s.open(Options{}))
			before := s.tree()
			err := s.open(Options{}).Delete(ctx, c.target)
			is(t, err, ErrUntouched)
			isNot(t, err, ErrTaken)
			says(t, err, c.says)
			_, err = s.open(Options{}).Archive(ctx, c.target)
			is(t, err, ErrUntouched)
			isNot(t, err, ErrTaken)
			if after := s.tree(); after != before {
				t.Errorf("the share changed from\n%s to\n%s", before, after)
			}
		})
	}
}

// The root of another file system below the share is not a volume's directory.
func TestForeignVolumeThatIsAMountPoint(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	s := newShare(t)
	must(t, os.MkdirAll(s.in("a"), 0o755))
	must(t, unix.Mount("none", s.in("a"), "tmpfs", 0, ""))
	t.Cleanup(func() { _ = unix.Unmount(s.in("a"), unix.MNT_DETACH) })
	s.write("x", "a", "file")
	err := s.open(Options{}).Delete(ctx, foreign("a", "one"))
	is(t, err, ErrConflict, ErrUntouched)
	s.has("x", "a", "file")
}

// Another cluster's claim comes at any step, at or below the place: it is not served
// with a directory that goes.
func TestForeignVolumeAndANewOneMeetAtAnyStep(t *testing.T) {
	for _, sub := range []string{"a", "a/new"} {
		for step, more := int64(1), true; more; step++ {
			s := newShare(t)
			theirs(s, "a")
			other := create(sub)
			other.Owner.Cluster = "another"
			tried, createErr := false, error(nil)
			l := &lease{before: func(now int64) {
				if now == step {
					tried, createErr = true, newCreate(s.open(Options{}), other)
				}
			}}
			err := s.open(Options{Fence: l.check}).Delete(ctx, foreign("a", "one"))
			if _, statErr := os.Stat(s.in(sub)); tried && createErr == nil && statErr != nil {
				t.Errorf("%s at step %d is served and has no directory: %v", sub, step, err)
			}
			if !tried {
				must(t, err)
			}
			more = tried
			s.close()
		}
	}
}

func TestForeignACrashAtAnyStep(t *testing.T) {
	calls := map[string]func(context.Context, *Root) error{
		"delete": func(ctx context.Context, root *Root) error { return root.Delete(ctx, foreign("a/b", "one")) },
		"archive": func(ctx context.Context, root *Root) error {
			_, err := root.Archive(ctx, foreign("a/b", "one"))
			return err
		},
	}
	for name, run := range calls {
		t.Run(name, func(t *testing.T) {
			sc := scenario{before: func(s *share, _ *Root) { theirs(s, "a/b"); theirs(s, "a/c") }, run: run}
			s, steps := uninterrupted(t, sc)
			want := s.tree()
			for end := int64(1); end <= steps; end++ {
				s := newShare(t)
				prepare(s, sc)
				stop(s, sc, end)
				for range 2 {
					must(t, run(ctx, s.open(Options{})))
				}
				if got := s.tree(); got != want {
					t.Fatalf("after an end at step %d of %d:\n%s want\n%s", end, steps, got, want)
				}
				s.has("x", "a", "c", "file")

				// Where nobody ever repeats it, dropping the record loses no data.
				s = newShare(t)
				prepare(s, sc)
				stop(s, sc, end)
				must(t, s.open(Options{}).Drop(ctx, Target{SubDir: "a/b", Owner: owner("one"), ShareID: testID}))
				if name == "archive" && strings.Count(s.tree(), "/deep/file") != 2 {
					t.Errorf("after an end at step %d and a drop:\n%s", end, s.tree())
				}
				s.close()
			}
		})
	}
}

func TestOnlyAForeignTargetNeedsNoID(t *testing.T) {
	if err := (Target{SubDir: "a", Owner: owner("one")}).check(); err == nil {
		t.Error("a volume of ours without a share id")
	}
	if err := foreign("a", "one").check(); err != nil {
		t.Error(err)
	}
}
