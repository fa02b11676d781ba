package dirs

import (
	"context"
	"errors"
	"os"
	"testing"
)

// meeting is two calls of two provisioners: b happens as a whole between two steps
// of a, whichever they are.
type meeting struct {
	before func(*share, *Root)
	a      func(context.Context, *Root) error
	b      func(t *testing.T, s *share, root *Root) error
	// after says what must hold then, whatever the two have returned.
	after func(t *testing.T, s *share, a, b error)
}

func call1(run func(context.Context, *Root) error) func(*testing.T, *share, *Root) error {
	return func(_ *testing.T, _ *share, root *Root) error { return run(ctx, root) }
}

// settle repeats a call as its caller would.
func settle(t *testing.T, s *share, run func(context.Context, *Root) error) {
	t.Helper()
	if err := run(ctx, s.open(Options{})); err != nil {
		t.Errorf("repeated: %v", err)
	}
}

func oneWins(t *testing.T, a, b error) {
	t.Helper()
	if (a == nil) == (b == nil) {
		t.Errorf("a: %v, b: %v", a, b)
	}
	for _, err := range []error{a, b} {
		if err != nil {
			is(t, err, ErrConflict, ErrUntouched)
		}
	}
}

func other(sub string) Create {
	want := create(sub)
	want.Owner = Owner{Cluster: "another", Volume: "pvc-other"}
	return want
}

// replaced is a volume that is deleted, or archived, and its path taken by another.
func replaced(leave func(context.Context, *Root) error, sub string) func(*testing.T, *share, *Root) error {
	return func(t *testing.T, s *share, root *Root) error {
		if err := leave(ctx, root); err != nil {
			return err
		}
		if err := newCreate(root, other(sub)); err != nil {
			return err
		}
		s.write("another's", sub, "file")
		return nil
	}
}

var meetings = map[string]meeting{
	"one path, two volumes": {
		a: doCreate(create("a/b")), b: call1(doCreate(other("a/b"))),
		after: func(t *testing.T, s *share, a, b error) {
			oneWins(t, a, b)
			winner := create("a/b")
			if a != nil {
				winner = other("a/b")
			}
			s.finished(winner)
		},
	},
	"one path, one volume": {
		a: doCreate(create("a/b")), b: call1(doCreate(create("a/b"))),
		after: func(t *testing.T, s *share, a, b error) {
			must(t, errors.Join(a, b))
			s.finished(create("a/b"))
		},
	},
	"one above the other": {
		a: doCreate(create("a")), b: call1(doCreate(create("a/b"))),
		after: func(t *testing.T, s *share, a, b error) { oneWins(t, a, b) },
	},
	"one below the other": {
		a: doCreate(create("a/b/c")), b: call1(doCreate(create("a"))),
		after: func(t *testing.T, s *share, a, b error) { oneWins(t, a, b) },
	},
	"one below the other, halfway": {
		a: doCreate(create("a/b/c")), b: call1(doCreate(create("a/b"))),
		after: func(t *testing.T, s *share, a, b error) { oneWins(t, a, b) },
	},
	"a sibling is created while the parent goes": {
		before: with(create("ns/m/old")), a: doDelete(create("ns/m/old")), b: call1(doCreate(create("ns/m/new"))),
		after: func(t *testing.T, s *share, a, b error) {
			must(t, errors.Join(a, b))
			s.finished(create("ns/m/new"))
			s.parents("ns", "ns/m")
		},
	},
	"the parent goes while a sibling is created": {
		before: with(create("ns/m/old")), a: doCreate(create("ns/m/new")), b: call1(doDelete(create("ns/m/old"))),
		after: func(t *testing.T, s *share, a, b error) {
			must(t, errors.Join(a, b))
			s.finished(create("ns/m/new"))
			s.parents("ns", "ns/m")
		},
	},
	"both delete": {
		before: with(create("ns/a")), a: doDelete(create("ns/a")), b: call1(doDelete(create("ns/a"))),
		after: func(t *testing.T, s *share, a, b error) {
			must(t, errors.Join(a, b))
			s.lacks("ns")
		},
	},
	"both delete, then another takes the path": {
		before: with(create("ns/a")), a: doDelete(create("ns/a")), b: replaced(doDelete(create("ns/a")), "ns/a"),
		after: func(t *testing.T, s *share, a, b error) {
			must(t, b)
			s.has("another's", "ns", "a", "file")
		},
	},
	"both archive": {
		before: with(create("ns/a")), a: doArchive(create("ns/a")), b: call1(doArchive(create("ns/a"))),
		after: func(t *testing.T, s *share, a, b error) {
			must(t, errors.Join(a, b))
			s.has("x", "archived-pvc-a", "ns", "a", "file")
			s.lacks("ns")
		},
	},
	"both archive, then another takes the path": {
		before: with(create("a")), a: doArchive(create("a")), b: replaced(doArchive(create("a")), "a"),
		after: func(t *testing.T, s *share, a, b error) {
			must(t, b)
			s.has("another's", "a", "file")
			s.has("x", "archived-pvc-a", "a", "file")
		},
	},
	"released while another joins": {
		before: with(retained("a", "r1")), b: call1(doCreate(retained("a", "r2"))),
		a: func(ctx context.Context, root *Root) error { return root.Release(ctx, retained("a", "r1").target()) },
		after: func(t *testing.T, s *share, a, b error) {
			must(t, errors.Join(a, b))
			s.has("x", "a", "file")
		},
	},
	"dropped while it is created": {
		a: doCreate(create("ns/a")), b: func(_ *testing.T, _ *share, root *Root) error { return root.Drop(ctx, create("ns/a").target()) },
		after: func(t *testing.T, s *share, a, b error) {
			must(t, b)
			if a == nil { // the rest is what the lease is for
				return
			}
			settle(t, s, doCreate(create("ns/a")))
			s.finished(create("ns/a"))
		},
	},
	"a volume where the archive is to be": {
		before: with(create("a")), a: doArchive(create("a")),
		b: func(t *testing.T, s *share, root *Root) error {
			err := newCreate(root, other("archived-pvc-a/a"))
			if err == nil {
				s.write("another's", "archived-pvc-a", "a", "file")
			}
			return err
		},
		after: func(t *testing.T, s *share, a, b error) {
			if b == nil {
				s.has("another's", "archived-pvc-a", "a", "file")
			}
			if a == nil {
				s.has("x", "archived-pvc-a", "a", "file")
			} else {
				s.has("x", "a", "file")
			}
		},
	},
}

// finished checks that want has been created as a whole.
func (s *share) finished(want Create) {
	s.t.Helper()
	sub := string(want.SubDir)
	if got := s.perm(sub); got != want.Mode {
		s.t.Errorf("%s: mode %#o, want %#o", sub, got, want.Mode)
	}
	r, err := s.open(Options{}).begin(ctx, testID, false)
	must(s.t, err)
	defer r.end()
	mine, err := r.own(ctx, want.target())
	must(s.t, err)
	if mine == nil {
		s.t.Errorf("%s has no record", sub)
	}
	if marked, err := r.marked(sub, want.Owner); !marked || err != nil {
		s.t.Errorf("%s has no mark: %v", sub, err)
	}
}

func (s *share) parents(subs ...string) {
	s.t.Helper()
	for _, sub := range subs {
		if _, err := os.Lstat(s.in(folderName, ownersName, parentName(sub))); err != nil {
			s.t.Errorf("the parent %s has no record: it will never go", sub)
		}
	}
}

func TestTwoCallsMeetAtAnyStep(t *testing.T) {
	for name, m := range meetings {
		t.Run(name, func(t *testing.T) {
			_, steps := uninterrupted(t, scenario{before: m.before, run: m.a})
			for step := int64(1); step <= steps; step++ {
				s := newShare(t)
				prepare(s, scenario{before: m.before})
				rootB := s.open(Options{})
				met := false
				var b error
				l := &lease{before: func(n int64) {
					if n == step {
						met = true
						b = m.b(t, s, rootB)
					}
				}}
				a := m.a(ctx, s.open(Options{Fence: l.check, Workers: 1}))
				if !met {
					t.Fatalf("step %d of %d did not happen", step, steps)
				}
				m.after(t, s, a, b)
				if t.Failed() {
					t.Fatalf("at step %d: a: %v, b: %v\n%s", step, a, b, s.tree())
				}
			}
		})
	}
}
