package testbed

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Host makes what the testbed needs on this machine. Its methods may be called at the same time.
type Host struct {
	root     string // of the repository
	cache    *Cache
	progress *Progress
}

// NewHost returns the Host of the repository that the working directory is in.
func NewHost(progress *Progress) (*Host, error) {
	root, err := repositoryRoot()
	if err != nil {
		return nil, err
	}
	if strings.ContainsAny(root, " \t,:'\"") {
		return nil, fmt.Errorf("the repository's path %q has a space, comma, colon or quote, which the user-mode kernel's command line can't hold: move it", root)
	}
	dir := filepath.Join(root, cacheFolder)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the cache folder: %w", err)
	}
	// the folder ignores itself, so that a repository without a .gitignore stays clean as well
	if err := os.WriteFile(filepath.Join(dir, ".gitignore"), []byte("*\n"), 0o644); err != nil {
		return nil, fmt.Errorf("make the cache folder: %w", err)
	}
	return &Host{root: root, cache: &Cache{dir: dir, progress: progress}, progress: progress}, nil
}

// Root is the repository's root folder.
func (h *Host) Root() string { return h.root }

// source returns a path inside the testbed's own source folder.
func (h *Host) source(elem ...string) string {
	return filepath.Join(append([]string{h.root, "internal", "testbed"}, elem...)...)
}
