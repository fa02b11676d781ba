package node

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// prepareTarget makes the target directory. Nothing is mounted on it, so that this
// looks at the node's own disk.
func prepareTarget(target string) error {
	if err := os.Mkdir(target, 0o750); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrExist) {
		return status.Errorf(codes.FailedPrecondition, "create the target path: %v", err)
	}
	return checkTarget(target)
}

// removeTarget removes the target, on which nothing is mounted, if it is an empty
// directory. A missing one is no error.
func removeTarget(target string) error {
	err := checkTarget(target)
	if err == nil {
		// rmdir fails on anything but an empty directory that is not a mount point, whatever
		// has happened since.
		if err := unix.Rmdir(target); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return status.Errorf(codes.Internal, "remove the target path %s: %v", target, err)
		}
	}
	return err
}

// checkTarget refuses anything but an empty directory. A mount would hide what is in it,
// which was written to the node's disk while nothing was mounted.
func checkTarget(target string) error {
	info, err := os.Lstat(target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return status.Errorf(codes.Internal, "read the target path: %v", err)
	}
	if !info.IsDir() {
		return status.Errorf(codes.FailedPrecondition, "the target path %s is not a directory; it was not changed: move it away", target)
	}
	dir, err := os.OpenFile(target, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0) // what was looked at, or nothing
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return status.Errorf(codes.Internal, "read the target path: %v", err)
	}
	defer func() { _ = dir.Close() }()
	names, err := dir.Readdirnames(1) // there may be very many
	if err != nil && !errors.Is(err, io.EOF) {
		return status.Errorf(codes.Internal, "read the target path: %v", err)
	}
	if len(names) > 0 {
		return status.Errorf(codes.FailedPrecondition, "the target path %s has files on the node's own disk, for example %q; they were not changed: move them away", target, names[0])
	}
	return nil
}
