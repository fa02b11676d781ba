package dirs

import (
	"context"
	"os"
	"strings"
	"testing"
)

// scenario is a call, and what is on the share before it.
type scenario struct {
	before func(s *share, root *Root)
	run    func(ctx context.Context, root *Root) error
	// dropped are the volumes without a PersistentVolume after a call of theirs that
	// never got to its end, kept what is left then. nil: the call has nothing to drop.
	dropped []Create
	kept    []string
}

func newCreate(root *Root, want Create) error {
	_, err := root.Create(ctx, want)
	return err
}

func doCreate(want Create) func(context.Context, *Root) error {
	return func(ctx context.Context, root *Root) error {
		_, err := root.Create(ctx, want)
		return err
	}
}

func doDelete(want Create) func(context.Context, *Root) error {
	return func(ctx context.Context, root *Root) error { return root.Delete(ctx, want.target()) }
}

func doArchive(want Create) func(context.Context, *Root) error {
	return func(ctx context.Context, root *Root) error {
		_, err := root.Archive(ctx, want.target())
		return err
	}
}

// with makes the volumes, each with a small tree in it.
func with(wants ...Create) func(*share, *Root) {
	return func(s *share, root *Root) {
		s.t.Helper()
		for _, want := range wants {
			must(s.t, newCreate(root, want))
			sub := string(want.SubDir)
			s.write("x", sub, "file")
			s.write("y", sub, "dir", "deep", "file")
			must(s.t, os.Mkdir(s.in(sub, "closed"), 0o500))
			must(s.t, os.Symlink("/", s.in(sub, "link")))
		}
	}
}

func withLost(want Create) func(*share, *Root) {
	return func(s *share, root *Root) {
		s.t.Helper()
		with(want)(s, root)
		s.lose(string(want.SubDir))
	}
}

// unfinish leaves an empty directory as a crash before its last step does.
func (s *share) unfinish(sub string) { must(s.t, os.Chmod(s.in(sub), unfinishedMode)) }

func owned(want Create) Create {
	want.UID, want.GID, want.Mode = int64(os.Getuid()), int64(os.Getgid()), 0o2770
	if os.Getuid() == 0 {
		want.UID, want.GID = 1234, 4321
	}
	return want
}

var scenarios = map[string]scenario{
	"create":                      {run: doCreate(create("a")), dropped: []Create{create("a")}},
	"create with an owner":        {run: doCreate(owned(create("a"))), dropped: []Create{create("a")}},
	"create retained":             {run: doCreate(retained("a", "r")), dropped: []Create{retained("a", "r")}, kept: []string{"/a"}},
	"create nested":               {run: doCreate(create("a/b/c")), dropped: []Create{create("a/b/c")}},
	"create nested beside one":    {before: with(create("a/x")), run: doCreate(create("a/b/c")), dropped: []Create{create("a/b/c")}},
	"create in somebody's folder": {before: func(s *share, _ *Root) { must(s.t, os.Mkdir(s.in("a"), 0o700)) }, run: doCreate(create("a/b")), dropped: []Create{create("a/b")}},
	"create with what is there": {
		before: func(s *share, _ *Root) { s.write("x", "a", "file") },
		run:    doCreate(retained("a", "r")), dropped: []Create{retained("a", "r")},
	},
	// nfs-subdir #127, #91, #167, #272: nested volumes were never deleted or archived.
	"delete":               {before: with(create("a")), run: doDelete(create("a"))},
	"delete nested":        {before: with(create("a/b/c")), run: doDelete(create("a/b/c"))},
	"delete beside others": {before: with(create("a/b/c"), create("a/d"), create("c")), run: doDelete(create("a/b/c"))},
	"delete, gone by hand": {before: func(s *share, r *Root) {
		with(create("a/b"))(s, r)
		must(s.t, os.Chmod(s.in("a/b/closed"), 0o700))
		must(s.t, os.RemoveAll(s.in("a")))
	}, run: doDelete(create("a/b"))},
	"archive":               {before: with(create("a")), run: doArchive(create("a"))},
	"archive nested":        {before: with(create("a/b/c")), run: doArchive(create("a/b/c"))},
	"archive beside others": {before: with(create("a/b/c"), create("a/d")), run: doArchive(create("a/b/c"))},
	"release":               {before: with(retained("a/b", "r")), run: doRelease(retained("a/b", "r"))},
	"drop":                  {before: func(s *share, r *Root) { must(s.t, newCreate(r, create("a/b/c"))) }, run: doDrop(create("a/b/c"))},
	"create, its record lost": {before: func(s *share, r *Root) {
		must(s.t, newCreate(r, create("a/b/c")))
		s.lose("a/b/c")
		s.unfinish("a/b/c")
	}, run: doCreate(create("a/b/c"))},
	"delete, its record lost":  {before: withLost(create("a/b/c")), run: doDelete(create("a/b/c"))},
	"archive, its record lost": {before: withLost(create("a/b/c")), run: doArchive(create("a/b/c"))},
	"drop, its record lost":    {before: func(s *share, r *Root) { must(s.t, newCreate(r, create("a/b/c"))); s.lose("a/b/c") }, run: doDrop(create("a/b/c"))},
}

// A call ends for ever before any of its steps, another one goes on: what is there
// in the end is what one call alone makes.
func TestACrashAtAnyStep(t *testing.T) {
	for name, sc := range scenarios {
		t.Run(name, func(t *testing.T) {
			s, steps := uninterrupted(t, sc)
			want := s.tree()
			for end := int64(1); end <= steps; end++ {
				s := newShare(t)
				prepare(s, sc)
				before := s.tree()
				stop(s, sc, end)
				if end == 1 && s.tree() != before {
					t.Errorf("step 1: the share changed from\n%s to\n%s", before, s.tree())
				}
				root := s.open(Options{})
				for range 2 {
					must(t, sc.run(ctx, root))
				}
				if got := s.tree(); got != want {
					t.Fatalf("after an end at step %d of %d:\n%s want\n%s", end, steps, got, want)
				}
			}
		})
	}
}

// The call that goes on ends in its turn.
func TestTwoCrashesAtAnySteps(t *testing.T) {
	stride := int64(1)
	if testing.Short() { // where each step takes a server's time
		stride = 8
	}
	for _, name := range []string{"create nested", "create with an owner", "delete nested", "archive nested"} {
		sc := scenarios[name]
		t.Run(name, func(t *testing.T) {
			s, steps := uninterrupted(t, sc)
			want := s.tree()
			for first := int64(1); first <= steps; first++ {
				for second := 1 + first%stride; second <= steps; second += stride {
					s := newShare(t)
					prepare(s, sc)
					stop(s, sc, first)
					stop(s, sc, second)
					must(t, sc.run(ctx, s.open(Options{})))
					s.close()
					if got := s.tree(); got != want {
						t.Fatalf("after ends at steps %d and %d:\n%s want\n%s", first, second, got, want)
					}
				}
			}
		})
	}
}

// The claim goes away after the crash, and nobody ever repeats the call.
func TestACrashAtAnyStepThenDrop(t *testing.T) {
	for name, sc := range scenarios {
		if sc.dropped == nil {
			continue
		}
		t.Run(name, func(t *testing.T) {
			_, steps := uninterrupted(t, sc)
			for end := int64(1); end <= steps+1; end++ {
				s := newShare(t)
				prepare(s, sc)
				before := s.tree()
				if end <= steps {
					stop(s, sc, end)
				} else {
					must(t, sc.run(ctx, s.open(Options{})))
				}
				root := s.open(Options{})
				records, err := root.Records(ctx, cluster)
				must(t, err)
				for _, want := range sc.dropped {
					for _, r := range records {
						if r.Owner == want.Owner {
							must(t, root.Drop(ctx, r.Target()))
							must(t, root.Drop(ctx, r.Target()))
						}
					}
				}
				got := s.tree()
				for _, kept := range sc.kept {
					got = without(got, kept)
				}
				if got != before {
					t.Fatalf("after an end at step %d of %d:\n%s want\n%s", end, steps, got, before)
				}
			}
		})
	}
}

// An archive that was begun, and nobody ever repeats: the data is in its old place
// or in its new one, and nothing else is left.
func TestACrashOfAnArchiveThenDrop(t *testing.T) {
	sc := scenarios["archive nested"]
	_, steps := uninterrupted(t, sc)
	for end := int64(1); end <= steps; end++ {
		s := newShare(t)
		prepare(s, sc)
		stop(s, sc, end)
		must(t, s.open(Options{}).Drop(ctx, create("a/b/c").target()))
		_, old := os.Stat(s.in("a/b/c/file"))
		_, archived := os.Stat(s.in("archived-pvc-c/a/b/c/file"))
		if (old == nil) == (archived == nil) {
			t.Errorf("step %d: %v, %v", end, old, archived)
		}
		if _, err := os.Stat(s.in("archived-pvc-c")); archived != nil && err == nil {
			t.Errorf("step %d: an empty archive is left", end)
		}
		for line := range strings.Lines(s.tree()) {
			if strings.HasPrefix(line, "/"+folderName+"/") && !strings.Contains(line, "/id ") && !(old == nil && strings.Contains(line, `"parent"`)) {
				t.Errorf("step %d: left: %s", end, line)
			}
		}
	}
}

func uninterrupted(t *testing.T, sc scenario) (*share, int64) {
	t.Helper()
	s := newShare(t)
	prepare(s, sc)
	l := &lease{}
	must(t, sc.run(ctx, s.open(Options{Fence: l.check, Workers: 1})))
	if l.steps.Load() < 2 {
		t.Fatalf("%d steps", l.steps.Load())
	}
	return s, l.steps.Load()
}

func prepare(s *share, sc scenario) {
	if sc.before != nil {
		sc.before(s, s.open(Options{}))
	} else { // so that making our folders is no step
		must(s.t, os.Mkdir(s.in(folderName, ownersName), 0o700))
	}
	must(s.t, os.MkdirAll(s.in(folderName, trashName), 0o700))
}

// stop runs the call to the step end, which does not happen.
func stop(s *share, sc scenario, end int64) {
	s.t.Helper()
	l := &lease{end: end}
	err := sc.run(ctx, s.open(Options{Fence: l.check, Workers: 1}))
	if err != nil {
		is(s.t, err, ErrFenced, errTestLease)
	}
	if end == 1 {
		is(s.t, err, ErrUntouched)
	}
	if l.steps.Load() > end {
		s.t.Errorf("%d steps after the lease had ended at step %d", l.steps.Load()-end, end)
	}
}

func without(tree, path string) string {
	var rest strings.Builder
	for line := range strings.Lines(tree) {
		if !strings.HasPrefix(line, path+" ") {
			rest.WriteString(line)
		}
	}
	return rest.String()
}
