package host

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// memory is where Linux has a file system in memory.
const memory = "/dev/shm"

// inMemory makes a folder in memory, and removes those of benches that were killed: each has a lock on its own
// as long as it runs. release removes it.
func inMemory() (dir string, release func() error, err error) {
	const pattern = "sharevol-bench-*"
	old, err := filepath.Glob(filepath.Join(memory, pattern))
	if err != nil {
		return "", nil, err
	}
	for _, dir := range old {
		if unlock, err := lock(dir); err == nil { // else it is used, or somebody else's
			_ = os.RemoveAll(dir)
			unlock()
		}
	}
	if dir, err = os.MkdirTemp(memory, pattern); err != nil {
		return "", nil, err
	}
	unlock, err := lock(dir)
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	return dir, func() error {
		defer unlock()
		return os.RemoveAll(dir)
	}, nil
}

func lock(dir string) (unlock func(), err error) {
	file, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = file.Close()
		return nil, err
	}
	return func() { _ = file.Close() }, nil
}
