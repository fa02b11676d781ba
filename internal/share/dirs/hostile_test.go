package dirs

import (
	"errors"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Somebody who may write to the share root changes the volume directory into a link
// to another volume and back, as fast as it goes, while it is deleted.
func TestALinkSwappedInWhileItIsDeleted(t *testing.T) {
	for name, nested := range map[string]string{"volume": "a", "parent": "p/a"} {
		t.Run(name, func(t *testing.T) {
			s := newShare(t)
			root := s.open(Options{})
			must(t, newCreate(root, create("victim/a")))
			s.write("precious", "victim", "a", "file")
			deleted := 0
			for range 150 {
				must(t, newCreate(root, create(nested)))
				s.write("x", nested, "dir", "file")
				swapped, target := s.in("a"), "victim/a"
				if nested != "a" {
					swapped, target = s.in("p"), "victim"
				}
				must(t, os.Symlink(target, s.in("link")))
				stop := exchange(swapped, s.in("link"))
				err := root.Delete(ctx, create(nested).target())
				stop()
				s.has("precious", "victim", "a", "file")
				if err == nil {
					deleted++
				}
				s.clear("a", "p", "link")
				if t.Failed() {
					t.Fatal(err, s.tree())
				}
			}
			t.Logf("%d deleted", deleted)
		})
	}
}

// exchange lets two names change places, each time in one step, until it is stopped.
func exchange(a, b string) (stop func()) {
	begun, done := make(chan struct{}), make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		for n := 0; ; n++ {
			_ = unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
			if n == 3 {
				close(begun)
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	<-begun
	return func() {
		close(done)
		group.Wait()
	}
}

// clear removes the names and all that is recorded or in the trash, but what belongs
// to the victim.
func (s *share) clear(names ...string) {
	s.t.Helper()
	for _, name := range names {
		must(s.t, os.RemoveAll(s.in(name)))
		for _, record := range []string{recordName(name), parentName(name), recordName(name + "/a"), markName(name, owner("pvc-a")), markName(name+"/a", owner("pvc-a"))} {
			if err := os.Remove(s.in(folderName, ownersName, record)); err != nil && !errors.Is(err, os.ErrNotExist) {
				s.t.Fatal(err)
			}
		}
	}
	must(s.t, os.RemoveAll(s.in(folderName, trashName)))
}

// The same inside the volume, where pods may do it while it is removed.
func TestALinkSwappedInInsideTheVolume(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	must(t, newCreate(root, create("victim")))
	s.write("precious", "victim", "dir", "file")
	for range 100 {
		must(t, newCreate(root, create("a")))
		s.write("x", "a", "dir", "file")
		must(t, os.Symlink("../../../victim", s.in("a", "link")))
		trash := s.in(folderName, trashName, "pvc-a")
		stop := exchange(trash+"/dir", trash+"/link")
		err := root.Delete(ctx, create("a").target())
		stop()
		s.has("precious", "victim", "dir", "file")
		if err != nil { // it lost the race for too often
			must(t, root.Delete(ctx, create("a").target()))
		}
		s.lacks("a")
		s.lacks(folderName, trashName, "pvc-a")
	}
}

// A link or a file in the trash is nothing that sharevol put there.
func TestWhatIsInTheTrashIsADirectory(t *testing.T) {
	for name, put := range map[string]func(s *share, path string){
		"link": func(s *share, path string) { must(s.t, os.Symlink(s.in("victim"), path)) },
		"file": func(s *share, path string) { must(s.t, os.WriteFile(path, nil, 0o600)) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newShare(t)
			root := s.open(Options{})
			must(t, newCreate(root, create("a")))
			must(t, newCreate(root, create("victim")))
			s.write("precious", "victim", "file")
			must(t, os.Mkdir(s.in(folderName, trashName), 0o700))
			put(s, s.in(folderName, trashName, "pvc-a"))
			before := s.tree()
			is(t, root.Delete(ctx, create("a").target()), ErrConflict, ErrUntouched)
			if s.tree() != before {
				t.Errorf("the share changed from\n%s to\n%s", before, s.tree())
			}
		})
	}
}
