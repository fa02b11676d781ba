package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// mountpoint is one line of the guest's mount table.
type mountpoint struct {
	source, target, fstype, options string
}

// kernelMounts are needed before modules can be loaded.
var kernelMounts = []mountpoint{
	{"proc", "/proc", "proc", ""},
	{"sysfs", "/sys", "sysfs", ""},
}

// nodeMounts come after the root file system has become writable. What containers and NFS keep is on
// tmpfs: an overlay can't be the upper layer of another one, nor be exported.
var nodeMounts = []mountpoint{
	{"tmpfs", "/run", "tmpfs", "mode=755"},
	{"tmpfs", "/tmp", "tmpfs", "mode=1777"},
	{"devpts", "/dev/pts", "devpts", "ptmxmode=666"},
	{"tmpfs", "/dev/shm", "tmpfs", "mode=1777"},
	{"mqueue", "/dev/mqueue", "mqueue", ""},
	{"cgroup2", "/sys/fs/cgroup", "cgroup2", ""},
	{"tmpfs", "/var/lib/kubelet", "tmpfs", "mode=755"},
	{"tmpfs", "/var/lib/containerd", "tmpfs", "mode=755"},
	{"tmpfs", "/var/lib/nfs", "tmpfs", "mode=755"},
	{"tmpfs", "/var/log", "tmpfs", "mode=755"},
	{"tmpfs", "/srv", "tmpfs", "mode=755"},
}

func mountAll() error {
	if err := mountEach(kernelMounts); err != nil {
		return err
	}
	if err := loadModules("overlay"); err != nil {
		return err
	}
	if err := overlayRoot(); err != nil {
		return err
	}
	if err := mountEach(nodeMounts); err != nil {
		return err
	}
	// mounts that the node plugin makes in its container have to reach the node and other pods
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("make all mounts shared: %w", err)
	}
	return nil
}

func mountEach(mounts []mountpoint) error {
	for _, m := range mounts {
		if err := os.MkdirAll(m.target, 0o755); err != nil && !errors.Is(err, unix.EROFS) {
			return fmt.Errorf("make a mount point: %w", err)
		}
		if err := unix.Mount(m.source, m.target, m.fstype, 0, m.options); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	return nil
}

// overlayRoot lays memory over the read-only root file system, so that every boot starts with the same
// one and may write where it likes.
func overlayRoot() error {
	const memory, root = "/mnt", "/mnt/root"
	if err := unix.Mount("tmpfs", memory, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount the writable layer: %w", err)
	}
	for _, dir := range []string{memory + "/upper", memory + "/work", root} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return fmt.Errorf("make the writable layer: %w", err)
		}
	}
	if err := unix.Mount("overlay", root, "overlay", 0, "lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work"); err != nil {
		return fmt.Errorf("mount the root overlay: %w", err)
	}
	for _, dir := range []string{"/dev", "/proc", "/sys", share} {
		if err := unix.Mount(dir, root+dir, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", dir, err)
		}
	}
	// the old root stays below the overlay; only its place in the mount table goes
	if err := os.Chdir(root); err != nil {
		return fmt.Errorf("enter the new root: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change the root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the old root: %w", err)
	}
	return os.Chdir("/")
}

// syncShare writes the share's files through to the host.
func syncShare() error {
	dir, err := os.Open(share)
	if err != nil {
		return fmt.Errorf("sync the share: %w", err)
	}
	defer dir.Close()
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return fmt.Errorf("sync the share: %w", err)
	}
	return nil
}
