package testbed

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// cacheFolder is where everything that the testbed makes is kept, in the repository's root.
const cacheFolder = ".testbed"

const (
	buildTimeout  = time.Hour // Kubernetes, on a slow machine
	removeTimeout = 5 * time.Minute
)

// modulePath is the module that a repository root declares.
const modulePath = "sharevol.dev/sharevol"

// Cache keeps folders that are expensive to make, each under its name and a key for what it was made
// from. It may be shared by any number of processes.
type Cache struct {
	dir      string
	progress *Progress
}

// Entry returns the folder of name and key; build fills it when it is not there yet. A folder appears
// whole or not at all, and only one process builds a name at a time; the others wait, until ctx ends.
// After a build, entries of the same name under other keys are removed.
func (c *Cache) Entry(ctx context.Context, name, key string, build func(ctx context.Context, dir string) error) (string, error) {
	final := filepath.Join(c.dir, name+"-"+key)
	if exists(final) {
		return final, nil
	}
	unlock, err := c.lock(ctx, name)
	if err != nil {
		return "", err
	}
	defer unlock()
	if exists(final) { // another process made it while this one waited
		return final, nil
	}
	if err := c.removeStale(name); err != nil {
		return "", err
	}
	temp := filepath.Join(c.dir, name+".tmp")
	if err := os.MkdirAll(temp, 0o755); err != nil {
		return "", fmt.Errorf("make a build folder: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, buildTimeout, fmt.Errorf("not built after %s", buildTimeout))
	defer cancel()
	if err := build(ctx, temp); err != nil {
		return "", errors.Join(fmt.Errorf("build %s: %w", name, err), removeTree(temp))
	}
	if err := os.Rename(temp, final); err != nil {
		return "", fmt.Errorf("publish %s: %w", name, err)
	}
	return final, c.removeOthers(name, final)
}

// lock takes the build lock of name. The lock dies with the process, so that a crash leaves none behind.
func (c *Cache) lock(ctx context.Context, name string) (unlock func(), err error) {
	locks := filepath.Join(c.dir, "locks")
	if err := os.MkdirAll(locks, 0o755); err != nil {
		return nil, fmt.Errorf("make the lock folder: %w", err)
	}
	path := filepath.Join(locks, name)
	file, err := os.OpenFile(path, os.O_CREATE, 0o644)
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, fmt.Errorf("make the lock of %s: %w", name, err)
	}
	for waited := false; ; waited = true {
		unlock, err := tryLock(path)
		if err == nil || !errors.Is(err, syscall.EWOULDBLOCK) {
			return unlock, err
		}
		if !waited {
			c.progress.Note("another run is making %s: waiting for it", name)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for another run to make %s: %w", name, ctx.Err())
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// tryLock locks a file or folder that is there; the error is EWOULDBLOCK when somebody else has locked it.
func tryLock(path string) (unlock func(), err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %q: %w", path, err), file.Close())
	}
	return func() { _ = file.Close() }, nil // closing gives the lock back
}

// removeStale clears what a build of name that was killed left behind. The caller holds the lock.
func (c *Cache) removeStale(name string) error {
	if err := removeTree(filepath.Join(c.dir, name+".tmp")); err != nil {
		return fmt.Errorf("remove an unfinished %s: %w", name, err)
	}
	return nil
}

// removeOthers removes the entries of name other than keep. The caller holds the lock.
func (c *Cache) removeOthers(name, keep string) error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return fmt.Errorf("list the cache: %w", err)
	}
	for _, entry := range entries {
		// keys have no dash, so that "image" is not taken for the name of "image-pause-KEY"
		owner, key, found := cutLast(entry.Name(), "-")
		path := filepath.Join(c.dir, entry.Name())
		if !found || owner != name || key == "" || path == keep {
			continue
		}
		if err := removeTree(path); err != nil {
			return fmt.Errorf("remove an outdated %s: %w", name, err)
		}
	}
	return nil
}

// removeTree removes a folder. What a user other than root had made in a user namespace belongs to the
// namespace's users, for whom only such a namespace can act.
func removeTree(path string) error {
	err := os.RemoveAll(path)
	if !errors.Is(err, fs.ErrPermission) || os.Geteuid() == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), removeTimeout)
	defer cancel()
	_, err = run(ctx, command(ctx, "unshare", "--map-root-user", "--map-auto", "rm", "-rf", path))
	return err
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Key makes a cache key out of everything that an entry is made from. It has no dash.
func Key(parts ...string) string {
	sum := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(sum, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(sum.Sum(nil))[:16]
}

// hashFiles returns a digest of the names and contents of the regular files at and below paths.
func hashFiles(paths ...string) (string, error) {
	var parts []string
	for _, root := range paths {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(root, path)
			parts = append(parts, rel, string(data))
			return err
		})
		if err != nil {
			return "", fmt.Errorf("hash %q: %w", root, err)
		}
	}
	return Key(parts...), nil
}

// repositoryRoot finds the repository that the working directory is in.
func repositoryRoot() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the repository: %w", err)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		first, _, _ := bytes.Cut(data, []byte("\n"))
		if err == nil && string(bytes.TrimSpace(first)) == "module "+modulePath {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no folder above %q holds the go.mod of %s", start, modulePath)
		}
	}
}
