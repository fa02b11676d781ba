package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// debianSuite is the release that the guest's root file system is made of; user-mode-linux comes from
// the host, its kernel modules go into the guest whatever the host's release is.
const debianSuite = "bookworm"

// guestPackages are the Debian packages inside the guest.
var guestPackages = []string{
	"busybox-static", "ca-certificates", "containerd", "containernetworking-plugins", "iproute2", "kmod",
	"nfs-common", "nfs-kernel-server", "rpcbind", "runc",
}

// modulesFolder holds the user-mode kernel's modules, in a folder named after its version.
const modulesFolder = "/usr/lib/uml/modules"

// firstInit is the guest's /sbin/init. It only makes the share visible, whose path on the host the
// kernel passes on from its command line, and hands over to the testbed's own init in it, so that the
// image needs no rebuild when that changes.
const firstInit = `#!/bin/sh
mount -t hostfs -o "$share" none /testbed && exec /testbed/guestinit
`

// RootFS is what a guest is made of.
type RootFS struct {
	Image   string // an ext2 file system, only ever mounted read-only
	Busybox string // a static busybox, for images
}

// RootFS returns the guest's root file system, made from Debian packages.
func (h *Host) RootFS(ctx context.Context) (RootFS, error) {
	if runtime.GOARCH != "amd64" {
		return RootFS{}, fmt.Errorf("the user-mode kernel exists for amd64 only; this is %s", runtime.GOARCH)
	}
	versions, err := os.ReadDir(modulesFolder)
	if err == nil && len(versions) == 0 {
		err = errors.New("the folder is empty")
	}
	if err != nil {
		return RootFS{}, fmt.Errorf("no kernel modules; is user-mode-linux installed? %w", err)
	}
	version := versions[len(versions)-1].Name()
	key := Key(version, debianSuite, strings.Join(guestPackages, " "), firstInit)
	dir, err := h.cache.Entry(ctx, "rootfs", key, func(ctx context.Context, dir string) error {
		done := h.progress.Step("making the guest's root file system out of Debian packages (about 30 s)")
		err := makeRootFS(ctx, dir, version)
		done(err)
		return err
	})
	return RootFS{Image: filepath.Join(dir, "root.ext2"), Busybox: filepath.Join(dir, "busybox")}, err
}

func makeRootFS(ctx context.Context, dir, kernelVersion string) error {
	scratch := filepath.Join(dir, "tmp") // else mmdebstrap unpacks into the host's /tmp
	if err := os.Mkdir(scratch, 0o755); err != nil {
		return fmt.Errorf("make a scratch folder: %w", err)
	}
	initFile := filepath.Join(scratch, "init")
	if err := os.WriteFile(initFile, []byte(firstInit), 0o755); err != nil {
		return fmt.Errorf("write the first init: %w", err)
	}
	args := []string{
		"--variant=minbase", "--format=ext2", "--include=" + strings.Join(guestPackages, ","),
		"--customize-hook=" + fmt.Sprintf(`mkdir -p "$1/testbed" "$1/lib/modules" && cp -a %s/%s "$1/lib/modules/"`, modulesFolder, kernelVersion),
		"--customize-hook=" + fmt.Sprintf("upload '%s' /sbin/init", initFile), `--customize-hook=chmod 755 "$1/sbin/init"`,
		"--customize-hook=" + fmt.Sprintf(`copy-out /bin/busybox '%s'`, dir),
		// the host's name and resolver mean nothing in there
		"--customize-hook=" + `echo node1 >"$1/etc/hostname"; : >"$1/etc/resolv.conf"`,
	}
	for _, unneeded := range []string{"doc", "info", "locale", "man"} {
		args = append(args, "--dpkgopt=path-exclude=/usr/share/"+unneeded+"/*")
	}
	if err := mmdebstrap(ctx, scratch, append(args, debianSuite, filepath.Join(dir, "root.ext2"))...); err != nil {
		return err
	}
	return os.RemoveAll(scratch)
}

// mmdebstrap runs that command, which unpacks into scratch, or, where the users of its namespace can't
// get there (home folders that only their owner may enter), into /var/tmp, and cleans up.
func mmdebstrap(ctx context.Context, scratch string, args ...string) (err error) {
	if os.Geteuid() != 0 && !openToAll(scratch) {
		if scratch, err = os.MkdirTemp("/var/tmp", "sharevol-"); err != nil {
			return fmt.Errorf("make a scratch folder: %w", err)
		}
		defer func() { err = errors.Join(err, removeTree(scratch)) }()
		if err := os.Chmod(scratch, 0o755); err != nil {
			return fmt.Errorf("make a scratch folder: %w", err)
		}
	}
	cmd := command(ctx, "mmdebstrap", args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+scratch) // else it unpacks into the host's /tmp
	_, err = run(ctx, cmd)                            // its standard input is /dev/null, as it must be
	return err
}

// openToAll says whether every user may go to dir.
func openToAll(dir string) bool {
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm()&0o001 == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}
