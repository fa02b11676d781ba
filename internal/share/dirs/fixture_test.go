package dirs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"sharevol.dev/sharevol/internal/volume"
)

const (
	testID  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	otherID = "ZYXWVUTSRQPONMLKJIHGFEDCBA"
	cluster = "8e1c5e3e-8b1f-4a7e-9d53-0a4a3a1f2b11"
)

var ctx = context.Background()

func owner(volume string) Owner { return Owner{Cluster: cluster, Volume: volume} }

// create is a Create for the volume called name, or the path with "pvc-" before it.
func create(sub string) Create {
	return Create{SubDir: volume.SubDir(sub), Owner: owner("pvc-" + filepath.Base(sub)), ShareID: testID, Mode: 0o777, UID: -1, GID: -1}
}

func retained(sub, volume string) Create {
	want := create(sub)
	want.Owner, want.Retain = owner(volume), true
	return want
}

func (w Create) target() Target { return Target{SubDir: w.SubDir, Owner: w.Owner, ShareID: testID} }

// share is a directory that stands for a share, with a known id.
type share struct {
	t     testing.TB
	path  string
	roots []*Root
}

func newShare(t testing.TB) *share {
	t.Helper()
	s := &share{t: t, path: filepath.Join(t.TempDir(), "share")}
	must(t, os.Mkdir(s.path, 0o755))
	must(t, os.Mkdir(s.in(folderName), 0o700))
	must(t, os.Symlink(idPrefix+testID, s.in(folderName, idName)))
	return s
}

// close closes all that has been opened, for tests that open many.
func (s *share) close() {
	for _, root := range s.roots {
		_ = root.Close()
	}
}

func (s *share) in(names ...string) string {
	return filepath.Join(append([]string{s.path}, names...)...)
}

// viewsVariable names the mounts, separated by colons, under which TMPDIR is seen by
// provisioners: with two NFS mounts that share no cache, each Root of a test works
// like one on another machine, and the test itself looks at what the server has.
const viewsVariable = "SHAREVOL_TEST_VIEWS"

var nextView atomic.Int64

func (s *share) open(o Options) *Root {
	s.t.Helper()
	path := s.path
	if views := os.Getenv(viewsVariable); views != "" && os.Getenv(namespaceVariable) == "" {
		all := strings.Split(views, ":")
		path = all[int(nextView.Add(1))%len(all)] + strings.TrimPrefix(path, os.TempDir())
	}
	root, err := Open(path, o)
	must(s.t, err)
	if s.roots = append(s.roots, root); len(s.roots) == 1 {
		s.t.Cleanup(s.close)
	}
	return root
}

func (s *share) write(content string, names ...string) {
	s.t.Helper()
	must(s.t, os.MkdirAll(filepath.Dir(s.in(names...)), 0o755))
	must(s.t, os.WriteFile(s.in(names...), []byte(content), 0o600))
}

func (s *share) has(content string, names ...string) {
	s.t.Helper()
	if got, err := os.ReadFile(s.in(names...)); err != nil || string(got) != content {
		s.t.Errorf("%s: %q, %v; want %q", filepath.Join(names...), got, err, content)
	}
}

func (s *share) lacks(names ...string) {
	s.t.Helper()
	if _, err := os.Lstat(s.in(names...)); !errors.Is(err, fs.ErrNotExist) {
		s.t.Errorf("%s is there (%v)", filepath.Join(names...), err)
	}
}

// perm returns the mode bits of a path as chmod takes them.
func (s *share) perm(names ...string) uint32 {
	s.t.Helper()
	var st syscall.Stat_t
	must(s.t, syscall.Lstat(s.in(names...), &st))
	return st.Mode & 0o7777
}

func (s *share) recorded(sub string) bool {
	_, err := os.Lstat(s.in(folderName, ownersName, recordName(sub)))
	return err == nil
}

// tree returns all that is on the share, but for .sharevol's empty folders: path,
// type and mode, owner, and the content of files and links.
func (s *share) tree() string {
	s.t.Helper()
	lines := map[string]string{}
	must(s.t, filepath.WalkDir(s.path, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		if strings.HasPrefix(path, s.in(folderName, ".nfs")) {
			return nil // the NFS client's own, for what is removed while it is open
		}
		rel, st := strings.TrimPrefix(path, s.path), info.Sys().(*syscall.Stat_t)
		content := ""
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content = string(data)
		case info.Mode()&fs.ModeSymlink != 0:
			if content, err = os.Readlink(path); err != nil {
				return err
			}
		}
		lines[rel] = fmt.Sprintf("%s %v %d:%d %s\n", rel, info.Mode(), st.Uid, st.Gid, content)
		return nil
	}))
	for _, name := range []string{ownersName, trashName} {
		delete(lines, "/"+folderName+"/"+name)
	}
	var all bytes.Buffer
	for _, rel := range slices.Sorted(maps.Keys(lines)) {
		all.WriteString(lines[rel])
	}
	return all.String()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func is(t testing.TB, err error, kinds ...error) {
	t.Helper()
	for _, kind := range kinds {
		if !errors.Is(err, kind) {
			t.Errorf("got %v, want a match of %v", err, kind)
		}
	}
}

func isNot(t testing.TB, err, kind error) {
	t.Helper()
	if errors.Is(err, kind) {
		t.Errorf("%v matches %v", err, kind)
	}
}

func says(t testing.TB, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one with %q", parts)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
}

// It wraps what a share might answer too, and must not be taken for that.
var errTestLease = fmt.Errorf("somebody else leads: %w", syscall.EACCES)

// lease is one that a test ends, or that does something before a step.
type lease struct {
	steps  atomic.Int64
	end    int64       // the step that does not happen, nor any after it; 0: none
	before func(int64) // called before each step, with its number from 1
}

func (l *lease) check() error {
	step := l.steps.Add(1)
	if l.before != nil {
		l.before(step)
	}
	if l.end > 0 && step >= l.end {
		return errTestLease
	}
	return nil
}

const namespaceVariable = "SHAREVOL_TEST_NAMESPACE"

// inNamespace runs the test again in a process with mounts of its own, as root of
// it, and says whether this is that process.
func inNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(namespaceVariable) != "" {
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=2m")
	cmd.Env = append(os.Environ(), namespaceVariable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) {
		t.Skipf("this machine gives a plain user no mounts of its own: run as root (%v)", err)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// asNobody runs the test in a process of an ordinary user.
func asNobody(t *testing.T) {
	t.Helper()
	dir, err := os.MkdirTemp("", "nobody-")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	must(t, os.Chown(dir, 65534, 65534))
	// The path of this program may lead through folders that are root's alone.
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("%v: %s", err, out)
	}
}
