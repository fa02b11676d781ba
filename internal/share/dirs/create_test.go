package dirs

import (
	"context"
	"errors"
	"io/fs"
	"os"
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
		is(t, root.Delete(ctx, want.target()), ErrUntouched)
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
		is(t, root.Delete(ctx, want.target()), ErrUntouched)
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
