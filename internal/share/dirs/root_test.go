package dirs

import (
	"errors"
	"os"
	"sync"
	"testing"
)

func TestProbe(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	must(t, root.Probe(ctx))
	must(t, os.RemoveAll(s.path))
	is(t, root.Probe(ctx), ErrUntouched)
}

func TestOpenTakesOnlyADirectory(t *testing.T) {
	s := newShare(t)
	s.write("x", "file")
	must(t, os.Symlink(s.path, s.in("link")))
	for _, name := range []string{"file", "link", "missing"} {
		if root, err := Open(s.in(name), Options{}); err == nil {
			must(t, root.Close())
			t.Errorf("%s: no error", name)
		}
	}
}

// Close leaves calls that are under way alone, and lets no other begin.
func TestClose(t *testing.T) {
	s := newShare(t)
	with(create("a"))(s, s.open(Options{}))
	var root *Root
	var once sync.Once
	root = s.open(Options{Fence: func() error {
		once.Do(func() {
			must(t, root.Close())
			is(t, root.Probe(ctx), os.ErrClosed, ErrUntouched)
			is(t, newCreate(root, create("b")), os.ErrClosed, ErrUntouched)
		})
		return nil
	}})
	must(t, root.Delete(ctx, create("a").target()))
	s.lacks("a")
	if err := root.Close(); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
}

func TestNoDescriptorIsLeft(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	count := func() int { return len(entries(&share{t: t, path: "/proc/self/fd"}, ".")) }
	use := func() {
		with(create("ns/m/a"), create("ns/b"))(s, root)
		_ = newCreate(root, other("ns/b"))
		_ = newCreate(root, create("ns/b/c"))
		_ = root.Delete(ctx, other("ns/b").target())
		must(t, root.Delete(ctx, create("ns/m/a").target()))
		_, err := root.Archive(ctx, create("ns/b").target())
		must(t, err)
		_, err = root.Records(ctx, cluster)
		must(t, err)
		must(t, os.Rename(s.in(folderName), s.in("away")))
		is(t, newCreate(root, create("x")), ErrOtherShare)
		must(t, os.Rename(s.in("away"), s.in(folderName)))
		must(t, os.Chmod(s.in("archived-pvc-b", "ns", "b", "closed"), 0o700))
		must(t, os.RemoveAll(s.in("archived-pvc-b")))
	}
	use()
	before := count()
	for range 10 {
		use()
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors, then %d", before, after)
	}
	must(t, root.Close())
	if after := count(); after >= before {
		t.Errorf("%d descriptors after Close, %d before", after, before)
	}
}
