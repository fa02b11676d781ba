package dirs

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/volume"
)

func TestCreateSetsTheModeWhateverTheUmask(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	for sub, want := range map[string]uint32{"a": 0o777, "b": 0o2770, "c": 0o1755, "ns/d": 0o700} {
		c := create(sub)
		c.Mode = want
		got, err := root.Create(ctx, c)
		must(t, err)
		if !got.Made || got.ShareID != testID {
			t.Errorf("%s: %+v", sub, got)
		}
		if got := s.perm(sub); got != want {
			t.Errorf("%s: mode %#o, want %#o", sub, got, want)
		}
	}
	if got := s.perm("ns"); got != parentMode {
		t.Errorf("the parent has the mode %#o", got)
	}
}

func TestCreateWithModeZeroLeavesWhatMkdirMakes(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	must(t, os.Mkdir(s.in("team"), 0o755))
	must(t, unix.Chmod(s.in("team"), 0o2755))
	old := unix.Umask(0o027)
	defer unix.Umask(old)
	for sub, want := range map[string]uint32{"a": 0o750, "team/b": 0o2750} {
		c := create(sub)
		c.Mode = 0
		_, err := root.Create(ctx, c)
		must(t, err)
		if got := s.perm(sub); got != want {
			t.Errorf("%s: mode %#o, want %#o", sub, got, want)
		}
	}
}

// A claim is provisioned again if its PersistentVolume could not be saved.
func TestCreateAgainKeepsWhatAPodHasDone(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	want := create("ns/pvc")
	for _, mode := range []uint32{0o700, unfinishedMode} {
		_, err := root.Create(ctx, want)
		must(t, err)
		s.write("x", "ns", "pvc", "data")
		must(t, os.Chmod(s.in("ns", "pvc"), fs.FileMode(mode)))
		before := s.tree()
		got, err := root.Create(ctx, want)
		must(t, err)
		if !got.Made || s.tree() != before {
			t.Errorf("%+v, the share changed from\n%s to\n%s", got, before, s.tree())
		}
	}
	must(t, os.Chmod(s.in("ns", "pvc"), 0o700))
}

func TestCreateGivesTheOwner(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	want := create("a")
	want.UID, want.GID, want.Mode = 1234, 4321, 0o2770
	_, err := root.Create(ctx, want)
	if os.Getuid() != 0 {
		is(t, err, ErrUntouched, unix.EPERM)
		says(t, err, "1234:4321", "chown a", "acts as uid", "root_squash")
		s.lacks("a")
		if s.recorded("a") {
			t.Error("its record is there")
		}
		return
	}
	must(t, err)
	var st unix.Stat_t
	must(t, unix.Lstat(s.in("a"), &st))
	if st.Uid != 1234 || st.Gid != 4321 || st.Mode&0o7777 != 0o2770 {
		t.Errorf("%d:%d %#o", st.Uid, st.Gid, st.Mode)
	}
}

func TestCreateRefusesWhatIsNoSubDirOrName(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	before := s.tree()
	long := strings.Repeat("x", maxName+1)
	// nfs-subdir #250, local-path CVE-2025-62878, csi-driver-nfs CVE-2026-3864
	// (#1040, #1088, #1179, #1241).
	for _, sub := range []string{"", ".", "..", "../x", "a/../b", "/a", "a//b", "a/", `a\..\b`, ".sharevol", ".sharevol/trash/x", "a\nb", long, "a\xffb"} {
		want := create("x")
		want.SubDir = volume.SubDir(sub)
		_, err := root.Create(ctx, want)
		is(t, err, ErrUntouched)
		is(t, root.Delete(ctx, want.target(), nil), ErrUntouched)
		_, err = root.Archive(ctx, want.target())
		is(t, err, ErrUntouched)
		is(t, root.Release(ctx, want.target()), ErrUntouched)
		is(t, root.Drop(ctx, want.target()), ErrUntouched)
	}
	for _, name := range []string{"", ".", "..", "a/b", "../x", `a\b`, "a\x00b", long, "a\xff"} {
		want := create("x")
		want.Owner.Volume = name
		_, err := root.Create(ctx, want)
		is(t, err, ErrUntouched)
		is(t, root.Delete(ctx, want.target(), nil), ErrUntouched)
		_, err = root.Archive(ctx, want.target())
		is(t, err, ErrUntouched)
	}
	for _, c := range []Create{{Mode: 0o4777}, {Mode: 1 << 12}, {UID: -2}, {GID: 1<<32 - 1}, {Owner: Owner{Volume: "x"}}} {
		want := create("x")
		want.Mode, want.UID, want.GID = c.Mode, c.UID, c.GID
		if c.Owner.Volume != "" {
			want.Owner = c.Owner
		}
		_, err := root.Create(ctx, want)
		is(t, err, ErrUntouched)
	}
	if s.tree() != before {
		t.Errorf("the share changed:\n%s", s.tree())
	}
}

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
			is(t, root.Delete(ctx, create(sub).target(), nil), ErrConflict)
			_, err = root.Archive(ctx, create(sub).target())
			is(t, err, ErrConflict)
		}
	}
	if s.tree() != before {
		t.Errorf("the share changed from\n%s to\n%s", before, s.tree())
	}
	// A crash between its record and the look at the directory proves nothing.
	l := &lease{end: 2}
	_, err := s.open(Options{Lease: l.check}).Create(ctx, create("data"))
	is(t, err, ErrLease)
	if !s.recorded("data") {
		t.Fatal("the crash came too early")
	}
	is(t, root.Delete(ctx, create("data").target(), nil), ErrConflict)
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
	for _, volume := range []string{"pvc-2", "pvc-1", "pvc-1", "pvc-3"} {
		is(t, root.Delete(ctx, retained("data", volume).target(), nil), ErrConflict, ErrUntouched)
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
		is(t, root.Delete(ctx, want.target(), nil), ErrConflict)
		_, err = root.Archive(ctx, want.target())
		is(t, err, ErrConflict)
		must(t, root.Drop(ctx, want.target())) // nothing of its own
		must(t, root.Release(ctx, want.target()))
	}
	if s.tree() != before {
		t.Errorf("the share changed from\n%s to\n%s", before, s.tree())
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
	must(t, root.Delete(ctx, want.target(), nil))
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
		if _, err := s.open(Options{Lease: l.check}).Create(ctx, create("a/b")); err == nil {
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
		must(t, root.Delete(ctx, create("a").target(), nil))
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
			is(t, root.Delete(ctx, want.target(), nil), ErrConflict)
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

func TestCreateMakesTheIDOnce(t *testing.T) {
	s := newShare(t)
	must(t, os.RemoveAll(s.in(folderName)))
	want := create("a")
	want.ShareID = ""
	got, err := s.open(Options{}).Create(ctx, want)
	must(t, err)
	if !idForm.MatchString(got.ShareID) || s.perm(folderName) != 0o700 {
		t.Errorf("%+v, %#o", got, s.perm(folderName))
	}
	again, err := s.open(Options{}).Create(ctx, want)
	must(t, err)
	if again != got {
		t.Errorf("%+v, then %+v", got, again)
	}
}

func TestRecordsThatCanNotBeReadAreSomebodys(t *testing.T) {
	for name, text := range map[string]string{
		"another version": `{"v":2,"cluster":"c","volume":"pvc-a","subDir":"a","kind":"volume"}`,
		"another kind":    `{"v":1,"cluster":"` + cluster + `","volume":"pvc-a","subDir":"a","kind":"quota"}`,
		"another field":   `{"v":1,"cluster":"` + cluster + `","volume":"pvc-a","subDir":"a","kind":"volume","x":1}`,
		"another path":    `{"v":1,"cluster":"` + cluster + `","volume":"pvc-a","subDir":"b","kind":"volume"}`,
		"no volume":       `{"v":1,"cluster":"` + cluster + `","subDir":"a","kind":"volume"}`,
		"two":             `{"v":1,"subDir":"a","kind":"parent"}{}`,
		"garbage":         "../../data",
	} {
		t.Run(name, func(t *testing.T) {
			s := newShare(t)
			root := s.open(Options{})
			must(t, os.MkdirAll(s.in(folderName, ownersName), 0o700))
			s.write("x", "a", "data")
			must(t, os.Symlink(text, s.in(folderName, ownersName, recordName("a"))))
			before := s.tree()
			for _, want := range []Create{create("a"), retained("a", "pvc-a"), create("a/b")} {
				_, err := root.Create(ctx, want)
				is(t, err, ErrConflict, ErrUntouched)
				says(t, err, recordPath("a"))
			}
			is(t, root.Delete(ctx, create("a").target(), nil), ErrConflict)
			_, err := root.Archive(ctx, create("a").target())
			is(t, err, ErrConflict)
			must(t, root.Drop(ctx, create("a").target()))
			must(t, root.Release(ctx, create("a").target()))
			if records, err := root.Records(ctx, cluster); err != nil || len(records) > 0 {
				t.Error(records, err)
			}
			if s.tree() != before {
				t.Errorf("the share changed from\n%s to\n%s", before, s.tree())
			}
		})
	}
}

func TestACallWhoseContextHasEndedDoesNothing(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err := root.Create(ended, create("a"))
	is(t, err, ErrUntouched)
	if !errors.Is(err, ended.Err()) {
		t.Error(err)
	}
	s.lacks("a")
}
