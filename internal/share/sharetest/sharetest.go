// Package sharetest has shares in local folders, for tests of what calls share.Manager:
// the directory work is the real one, without mounts and helper processes.
package sharetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"sharevol.dev/sharevol/internal/share"
	"sharevol.dev/sharevol/internal/share/dirs"
	"sharevol.dev/sharevol/internal/share/operation"
	"sharevol.dev/sharevol/internal/volume"
)

// Shares is a share.Doer whose shares are folders of a test. Its methods may be called
// concurrently; set its fields before the first call, or between two.
type Shares struct {
	// Block, when not nil, makes every operation wait until it is closed.
	Block   chan struct{}
	t       testing.TB
	waiting atomic.Int32

	mu    sync.Mutex
	err   error
	only  *volume.Share // the only share that is served; nil: all are
	roots map[volume.Share]*dirs.Root
	paths map[volume.Share]string
	made  map[string]share.Ref // how the share of a new directory was mounted, by its source
	above map[string]bool      // the paths of folders above those of Put
}

var _ share.Doer = (*Shares)(nil)

// New returns shares that are empty and work. They are gone when the test ends.
func New(t testing.TB) *Shares {
	s := &Shares{t: t, roots: map[volume.Share]*dirs.Root{}, paths: map[volume.Share]string{}, made: map[string]share.Ref{}, above: map[string]bool{}}
	t.Cleanup(func() {
		for _, root := range s.roots {
			if err := root.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return s
}

// Fail makes every operation return err. With share.ErrUntouched it does nothing, with
// another error its work all the same; nil ends it.
func (s *Shares) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// Waiting returns how many operations wait for Block.
func (s *Shares) Waiting() int { return int(s.waiting.Load()) }

// ServeOnly has no other share served.
func (s *Shares) ServeOnly(of volume.Share) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.only = &of
}

// Serves reports whether a share is the only one, or all are served.
func (s *Shares) Serves(of volume.Share) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.only == nil || *s.only == of
}

// Do does an operation in the folder of the share.
func (s *Shares) Do(ctx context.Context, ref share.Ref, name string, arguments, result any) error {
	if s.Block != nil {
		s.waiting.Add(1)
		<-s.Block
		s.waiting.Add(-1)
	}
	s.mu.Lock()
	err := s.err
	s.mu.Unlock()
	switch {
	case errors.Is(err, share.ErrUntouched):
		return err
	case !s.Serves(ref.Share):
		return fmt.Errorf("%w: %s is not one of the shares that are mounted for the provisioner", share.ErrUntouched, ref.Share)
	}
	root, _ := s.open(ref.Share)
	encoded, encodeErr := json.Marshal(arguments)
	if encodeErr != nil {
		return encodeErr
	}
	done, runErr := operation.Run(ctx, root, name, encoded)
	if runErr != nil {
		return runErr
	}
	if create, is := arguments.(dirs.Create); is {
		s.mu.Lock()
		s.made[volume.Directory{Share: ref.Share, SubDir: create.SubDir}.DisplayPath()] = ref
		s.mu.Unlock()
	}
	if encoded, encodeErr = json.Marshal(done); encodeErr != nil {
		return encodeErr
	}
	return errors.Join(err, json.Unmarshal(encoded, result))
}

// open returns the root of a share and its folder, which is made when it is not there.
func (s *Shares) open(of volume.Share) (*dirs.Root, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	of.Server = volume.CanonicalServer(of.Server)
	if s.roots[of] == nil {
		path := s.t.TempDir()
		root, err := dirs.Open(path, dirs.Options{})
		if err != nil {
			s.t.Error(err)
			panic(err) // what calls may be no goroutine of the test
		}
		s.roots[of], s.paths[of] = root, path
	}
	return s.roots[of], s.paths[of]
}

// Path returns the folder of a share.
func (s *Shares) Path(of volume.Share) string {
	_, path := s.open(of)
	return path
}

// Ref returns how the share of a directory was mounted when that was made.
func (s *Shares) Ref(source string) share.Ref {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.made[source]
}

// Put writes a file into a directory, and makes that if it is not there, as another
// client of the share would.
func (s *Shares) Put(of volume.Share, dir volume.SubDir) {
	s.t.Helper()
	path := filepath.Join(s.Path(of), string(dir))
	s.must(os.MkdirAll(path, 0o755))
	s.must(os.WriteFile(filepath.Join(path, "data"), nil, 0o600))
	s.mu.Lock()
	defer s.mu.Unlock()
	for above := filepath.Dir(path); above != "/"; above = filepath.Dir(above) {
		s.above[above] = true
	}
}

// SetID puts another file system's id on a share; an empty one takes it away.
func (s *Shares) SetID(of volume.Share, id string) {
	s.t.Helper()
	path := filepath.Join(s.Path(of), ".sharevol", "id")
	s.must(os.MkdirAll(filepath.Dir(path), 0o700))
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		s.must(err)
	}
	if id != "" {
		s.must(os.Symlink("id:"+id, path))
	}
}

// Dirs returns the directories that are there, as mount(8) would name them: those with a
// file, and empty ones unless they were made for what Put has put there.
func (s *Shares) Dirs() []string {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var sources []string
	for of, root := range s.paths {
		s.must(filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			switch {
			case err != nil || !entry.IsDir() || path == root:
				return err
			case entry.Name() == ".sharevol":
				return fs.SkipDir
			}
			entries, err := os.ReadDir(path)
			file := slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return !e.IsDir() })
			if err != nil || !file && (len(entries) > 0 || s.above[path]) {
				return err
			}
			dir := volume.SubDir(strings.TrimPrefix(path, root+"/"))
			sources = append(sources, volume.Directory{Share: of, SubDir: dir}.DisplayPath())
			return nil
		}))
	}
	slices.Sort(sources)
	return sources
}

func (s *Shares) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}
