package dirs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/volume"
)

// ask is a Survey for the volumes at the given places.
func ask(volumes ...volume.SubDir) Survey {
	return Survey{Cluster: cluster, Volumes: volumes, SizeTime: time.Minute}
}

func (s *share) survey(ask Survey) Surveyed {
	s.t.Helper()
	found, err := s.open(Options{Fence: func() error { return errTestLease }}).Survey(ctx, ask)
	must(s.t, err)
	return found
}

// lines is what a survey found, one line for each thing.
func (f Surveyed) lines() []string {
	var lines []string
	for _, m := range f.Missing {
		lines = append(lines, fmt.Sprintf("missing %s %s", m.SubDir, m.Why))
	}
	for _, o := range f.Orphans {
		lines = append(lines, fmt.Sprintf("orphan %s %s", o.Path, o.Volume))
	}
	for _, k := range f.Archives {
		lines = append(lines, fmt.Sprintf("archive %s %s %s %d in %d %s", k.Path, k.Volume, k.Owner, k.Size.Bytes, k.Size.Files, k.Size.Cut))
	}
	for _, k := range f.Trash {
		lines = append(lines, fmt.Sprintf("trash %s %s %s %d in %d %s", k.Path, k.Volume, k.Owner, k.Size.Bytes, k.Size.Files, k.Size.Cut))
	}
	for i, line := range lines {
		lines[i] = strings.TrimSpace(line)
	}
	return lines
}

func (f Surveyed) is(t *testing.T, want ...string) {
	t.Helper()
	if got := f.lines(); !slices.Equal(got, want) {
		t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
	if len(f.Unread) > 0 || f.Cut {
		t.Errorf("unread %q, cut %v", f.Unread, f.Cut)
	}
}

func TestSurveyFindsWhatNobodyNames(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	for _, sub := range []string{"plain", "ns/a", "ns/gone", "deep/er/b", "left/behind", "crashed"} {
		_, err := root.Create(ctx, create(sub))
		must(t, err)
	}
	other := create("theirs/x")
	other.Owner.Cluster = "another"
	_, err := root.Create(ctx, other)
	must(t, err)
	_, err = root.Create(ctx, func() Create { c := create("theirs-flat"); c.Owner.Cluster = "another"; return c }())
	must(t, err)
	s.write("x", "mine", "data")            // somebody's, or retained
	s.write("x", "ns/by-hand", "data")      // beside volumes
	s.write("x", "plain", "ns", "data")     // in a volume
	s.write("x", "file")                    // no directory
	s.write("x", "lost+found", "data")      // the file system's
	s.write("x", "other-share", "v", "d")   // the root of another share
	must(t, os.Symlink("plain", s.in("z"))) // never followed
	must(t, os.Symlink("gone-by-hand", s.in("linked")))

	before := s.tree()
	asked := ask("plain", "ns/a", "deep/er/b", "linked", "no/where")
	asked.Others = []volume.SubDir{"other-share"}
	found := s.survey(asked)
	found.is(t,
		"missing linked linked is a link or a file, not a directory: left alone",
		"missing no/where",
		"orphan crashed pvc-crashed",
		"orphan left/behind pvc-behind",
		"orphan mine",
		"orphan ns/by-hand",
		"orphan ns/gone pvc-gone",
	)
	if found.Foreign != 2 {
		t.Errorf("%d directories of other clusters", found.Foreign)
	}
	if after := s.tree(); after != before {
		t.Errorf("changed:\n%s\nto\n%s", before, after)
	}
	if changed := found.Orphans[0].Changed; time.Since(changed) > time.Hour {
		t.Errorf("changed at %v", changed)
	}
}

func TestSurveyOfAShareNeverUsedMakesNothing(t *testing.T) {
	s := newShare(t)
	must(t, os.RemoveAll(s.in(folderName)))
	s.write("x", "data", "file")
	before := s.tree()
	s.survey(ask("a")).is(t, "missing a", "orphan data")
	description, err := s.open(Options{}).Describe(ctx)
	must(t, err)
	if description.ShareID != "" || description.Fault != "" {
		t.Errorf("%+v", description)
	}
	// Half of what sharevol keeps is not completed either.
	must(t, os.Mkdir(s.in(folderName), 0o700))
	must(t, os.Symlink(idPrefix+testID, s.in(folderName, idName)))
	s.survey(ask("a")).is(t, "missing a", "orphan data")
	must(t, os.RemoveAll(s.in(folderName)))
	if after := s.tree(); after != before {
		t.Errorf("changed:\n%s\nto\n%s", before, after)
	}
	must(t, os.Mkdir(s.in(folderName), 0o700))
	must(t, os.Symlink(idPrefix+testID, s.in(folderName, idName)))
	if _, err := s.open(Options{}).Survey(ctx, ask()); err != nil {
		t.Error(err)
	}
	s.lacks(folderName, ownersName)
	s.lacks(folderName, trashName)
}

func TestSurveyWhereAVolumeIsTheWholeShare(t *testing.T) {
	s := newShare(t)
	s.write("x", "data", "file")
	s.write("x", "archived-by-hand", "file")
	_, err := s.open(Options{}).Create(ctx, create("left"))
	must(t, err)
	asked := ask()
	asked.Others = []volume.SubDir{""}
	s.survey(asked).is(t, "orphan left pvc-left", "archive archived-by-hand   1 in 1")
}

func TestSurveyOfArchivesAndTrash(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	a := create("ns/a")
	_, err := root.Create(ctx, a)
	must(t, err)
	s.write("12345", "ns", "a", "deep", "er", "file")
	s.write("1", "ns", "a", "file")
	must(t, os.Symlink("/etc", s.in("ns", "a", "link")))
	name, err := root.Archive(ctx, a.target())
	must(t, err)
	s.write("123", "archived-default-claim-pvc-1", "file") // nfs-subdir's
	for _, volume := range []string{"ours", "theirs"} {
		c := create(volume)
		if volume == "theirs" {
			c.Owner.Cluster = "another"
		}
		_, err := root.Create(ctx, c)
		must(t, err)
		must(t, os.MkdirAll(s.in(folderName, trashName), 0o700))
		must(t, os.Rename(s.in(volume), s.in(folderName, trashName, "pvc-"+volume)))
	}
	s.write("12", folderName, trashName, "pvc-ours", "file")
	s.write("12", folderName, trashName, "misplaced-X", "file")
	s.survey(ask()).is(t,
		"archive archived-default-claim-pvc-1   3 in 1",
		"archive archived-pvc-a   6 in 2",
		"trash .sharevol/trash/misplaced-X   2 in 1",
		"trash .sharevol/trash/pvc-ours pvc-ours this cluster 2 in 1",
		"trash .sharevol/trash/pvc-theirs pvc-theirs another cluster 0 in 0",
	)
	if !strings.HasPrefix(name, "archived-pvc-a/") {
		t.Error(name)
	}
}

func TestSurveyIsBounded(t *testing.T) {
	s := newShare(t)
	for i := range 2 * batch {
		must(t, os.Mkdir(s.in(fmt.Sprintf("dir-%03d", i)), 0o700))
	}
	s.write("x", "archived-a", strings.Repeat("d/", maxDepth+2), "file")
	for i := range 3 * batch {
		s.write("x", "archived-b", fmt.Sprint(i))
	}
	limited := ask("m1", "m2", "m3", "m4")
	limited.Limit = 3
	found := s.survey(limited)
	if len(found.Orphans) != 3 || found.MoreOrphans != 2*batch-3 || len(found.Missing) != 3 || found.MoreMissing != 1 {
		t.Errorf("%d and %d orphans, %d and %d missing", len(found.Orphans), found.MoreOrphans, len(found.Missing), found.MoreMissing)
	}
	if a, b := found.Archives[0].Size, found.Archives[1].Size; a.Cut != cutDepth || b != (Size{Bytes: 3 * batch, Files: 3 * batch}) {
		t.Errorf("sizes %+v, %+v", a, b)
	}

	hurried := ask()
	hurried.SizeTime = time.Nanosecond
	if found := s.survey(hurried); found.Archives[1].Size.Cut != cutTime {
		t.Errorf("%+v", found.Archives)
	}
	hurried.SizeTime = 0
	if found := s.survey(hurried); found.Archives[1].Size != (Size{Cut: cutUnmeasured}) {
		t.Errorf("%+v", found.Archives)
	}
	hurried.Time = time.Nanosecond
	if found := s.survey(hurried); !found.Cut || len(found.Orphans) > batch {
		t.Errorf("cut %v, %d orphans", found.Cut, len(found.Orphans))
	}
	ended, cancel := context.WithCancel(ctx)
	_, err := s.open(Options{}).Survey(WithProgress(ended, cancel), ask()) // at the first step
	is(t, err, context.Canceled, ErrUntouched)
}

func TestSurveyTellsWhatItCanNotRead(t *testing.T) {
	if os.Getuid() == 0 { // which reads everything
		asNobody(t)
		return
	}
	s := newShare(t)
	s.write("x", "ns", "v", "file")
	s.write("x", "archived-a", "closed", "file")
	must(t, os.Chmod(s.in("ns"), 0o300))
	must(t, os.Chmod(s.in("archived-a", "closed"), 0))
	t.Cleanup(func() { _ = os.Chmod(s.in("ns"), 0o700); _ = os.Chmod(s.in("archived-a", "closed"), 0o700) })
	found := s.survey(ask("ns/v"))
	if len(found.Unread) != 1 || !strings.Contains(found.Unread[0], "read ns: permission denied") || len(found.Missing) > 0 {
		t.Errorf("%+v", found)
	}
	if cut := found.Archives[0].Size.Cut; !strings.Contains(cut, "permission denied") {
		t.Error(cut)
	}
}

func TestSurveyTakesNoPathOutOfTheShare(t *testing.T) {
	for _, sub := range []volume.SubDir{"..", "a/../..", "/etc", "a//b", ""} {
		_, err := newShare(t).open(Options{}).Survey(ctx, ask(sub))
		is(t, err, ErrUntouched)
	}
}

func TestDescribe(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	d, err := root.Describe(ctx)
	must(t, err)
	if d.ShareID != testID || d.Fault != "" || d.Space.Bytes == 0 || d.Space.FreeBytes > d.Space.Bytes || d.Magic == 0 {
		t.Errorf("%+v", d)
	}
	s.lacks(folderName, ownersName)
	must(t, os.Remove(s.in(folderName, idName)))
	must(t, os.Symlink("nonsense", s.in(folderName, idName)))
	if d, err = root.Describe(ctx); err != nil || d.ShareID != "" || !strings.Contains(d.Fault, "does not have the form") {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := root.Survey(ctx, ask()); err == nil {
		t.Error("a survey without records that it can't read")
	}
	must(t, root.Close())
	if _, err := root.Describe(ctx); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
}

// The options of a mount are in the table of mounts; see what a kernel writes there.
func TestMountID(t *testing.T) {
	file, err := os.Open("/proc")
	must(t, err)
	defer file.Close()
	id, err := mountID(file)
	must(t, err)
	var st unix.Statx_t
	must(t, unix.Statx(int(file.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st))
	if st.Mask&unix.STATX_MNT_ID != 0 && uint64(id) != st.Mnt_id {
		t.Errorf("%d, want %d", id, st.Mnt_id)
	}
	if options, err := mountOptions(file); !strings.HasPrefix(options, "r") || err != nil { // rw or ro
		t.Errorf("%q, %v", options, err)
	}
}
