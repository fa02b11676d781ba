package dirs

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
)

// Many at once, in two provisioners: volumes of one path, of paths above one
// another, siblings that come and go, and all is gone in the end.
func TestManyCallsAtOnce(t *testing.T) {
	s := newShare(t)
	roots := []*Root{s.open(Options{}), s.open(Options{})}
	paths := []string{"a", "a/b", "a/b/c", "a/d", "ns/m/x", "ns/m/y", "ns/z"}
	var owned sync.Map // path -> the one volume that has it
	var group sync.WaitGroup
	for worker := range 16 {
		group.Go(func() {
			random := rand.New(rand.NewPCG(uint64(worker), 1))
			for round := range 40 {
				sub := paths[random.IntN(len(paths))]
				want := create(sub)
				want.Owner.Volume = fmt.Sprintf("pvc-%d-%d", worker, round)
				root := func() *Root { return roots[random.IntN(2)] }
				err := newCreate(root(), want)
				if err != nil {
					if !errors.Is(err, ErrUntouched) {
						t.Errorf("create %s: %v", sub, err)
					}
					continue
				}
				if before, taken := owned.Swap(sub, want.Owner.Volume); taken {
					t.Errorf("%s belongs to %v and %s", sub, before, want.Owner.Volume)
				}
				if err := os.WriteFile(s.in(sub, want.Owner.Volume), nil, 0o600); err != nil {
					t.Error(err)
				}
				if entries, err := os.ReadDir(s.in(sub)); err != nil || len(entries) != 1 {
					t.Errorf("%s: %v, %v", sub, entries, err)
				}
				owned.Delete(sub)
				if random.IntN(2) == 0 {
					err = root().Delete(ctx, want.target())
				} else if _, err = root().Archive(ctx, want.target()); err == nil {
					err = os.Remove(s.in(archivePath(want.target()), want.Owner.Volume))
					must(t, os.RemoveAll(s.in(archiveTop(want.Owner))))
				}
				if err != nil {
					t.Errorf("leave %s: %v", sub, err)
				}
			}
		})
	}
	group.Wait()
	if entries, err := os.ReadDir(s.path); err != nil || len(entries) != 1 {
		t.Errorf("left: %v, %v\n%s", entries, err, s.tree())
	}
	for _, name := range []string{ownersName, trashName} {
		if entries, err := os.ReadDir(s.in(folderName, name)); err != nil || len(entries) != 0 {
			t.Errorf("left in %s: %v, %v", name, entries, err)
		}
	}
}

// One volume, created by many at once.
func TestManyCreateTheSame(t *testing.T) {
	for range 20 {
		s := newShare(t)
		must(t, os.RemoveAll(s.in(folderName)))
		want := create("a/b/c")
		want.ShareID = ""
		roots := []*Root{s.open(Options{}), s.open(Options{})}
		ids := make([]string, 16)
		var group sync.WaitGroup
		for i := range ids {
			group.Go(func() {
				got, err := roots[i%2].Create(ctx, want)
				if err != nil || !got.Made {
					t.Errorf("%+v, %v", got, err)
				}
				ids[i] = got.ShareID
			})
		}
		group.Wait()
		for _, id := range ids {
			if id != ids[0] || id == "" {
				t.Errorf("ids %q and %q", ids[0], id)
			}
		}
		want.ShareID = ids[0]
		if got := s.perm("a/b/c"); got != want.Mode {
			t.Errorf("mode %#o", got)
		}
		must(t, roots[0].Delete(ctx, Target{SubDir: want.SubDir, Owner: want.Owner, ShareID: ids[0]}))
		s.lacks("a")
	}
}

// Many delete one volume, and many archive another.
func TestManyLeaveTheSame(t *testing.T) {
	for range 10 {
		s := newShare(t)
		roots := []*Root{s.open(Options{}), s.open(Options{})}
		with(create("ns/gone"), create("ns/kept"))(s, roots[0])
		for i := range 300 {
			s.write("x", "ns", "gone", fmt.Sprint(i%20), fmt.Sprint(i))
		}
		var group sync.WaitGroup
		for i := range 8 {
			group.Go(func() {
				if err := roots[i%2].Delete(ctx, create("ns/gone").target()); err != nil {
					t.Error(err)
				}
			})
			group.Go(func() {
				if _, err := roots[i%2].Archive(ctx, create("ns/kept").target()); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		s.lacks("ns")
		s.has("x", "archived-pvc-kept", "ns", "kept", "file")
	}
}
