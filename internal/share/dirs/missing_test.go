package dirs

import (
	"os"
	"testing"
)

// A retained directory that was made, and that somebody removed, is not being made.
func TestARetainedDirectoryThatIsMissing(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	must(t, newCreate(root, retained("ns/data", "pvc-x")))
	must(t, os.RemoveAll(s.in("ns")))
	before := s.tree()
	for range 2 {
		err := newCreate(root, retained("ns/data", "pvc-y"))
		is(t, err, ErrConflict, ErrUntouched)
		says(t, err, "ns/data is missing, and was made for the volume pvc-x", "make the directory again by hand, or delete that volume")
	}
	if s.tree() != before {
		t.Errorf("the share changed from\n%s to\n%s", before, s.tree())
	}
	must(t, os.MkdirAll(s.in("ns/data"), 0o755)) // as it says
	must(t, newCreate(root, retained("ns/data", "pvc-y")))
	must(t, os.RemoveAll(s.in("ns")))
	must(t, root.Release(ctx, retained("ns/data", "pvc-x").target())) // or so
	must(t, newCreate(root, retained("ns/data", "pvc-y")))
	if got := s.perm("ns/data"); got != 0o777 {
		t.Errorf("mode %#o", got)
	}
}

// Until the mkdir, and after it until the last step, others wait.
func TestARetainedDirectoryThatIsBeingMade(t *testing.T) {
	_, steps := uninterrupted(t, scenario{run: doCreate(retained("a", "pvc-x"))})
	for step := int64(2); step <= steps; step++ {
		s := newShare(t)
		prepare(s, scenario{})
		l := &lease{end: step}
		is(t, doCreate(retained("a", "pvc-x"))(ctx, s.open(Options{Fence: l.check})), ErrFenced)
		err := newCreate(s.open(Options{}), retained("a", "pvc-y"))
		is(t, err, ErrUntouched)
		isNot(t, err, ErrConflict)
		says(t, err, "a is being made for the volume pvc-x: try again")
	}
}
