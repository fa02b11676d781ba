package nfsmount

import (
	"os/exec"
	"slices"
	"strings"

	mount "k8s.io/mount-utils"
)

// mountHelper is what mount(8) runs for NFS, from /sbin whatever PATH says.
const mountHelper = "mount.nfs"

// findHelper returns the path of mount.nfs.
func findHelper() (string, error) {
	if path, err := exec.LookPath(mountHelper); err == nil {
		return path, nil
	}
	return exec.LookPath("/sbin/" + mountHelper)
}

// mountCommand returns the command that mounts source on target: mount.nfs itself, which
// takes the options and does all of the work, in two thirds of the time; but mount(8),
// where that has a part in it. Neither notes the mount in /run/mount/utab (-n): umount(8)
// would have to take it out again, and needs none of it.
func mountCommand(source, target string, options []string) (name string, args []string, err error) {
	if mountsItself(options) {
		return "mount", append([]string{"-n"}, mount.MakeMountArgs(source, target, "nfs", options)...), nil
	}
	name, err = findHelper()
	// What is mounted where has to come first.
	return name, []string{source, target, "-n", "-o", strings.Join(options, ",")}, err
}

// Options that mount(8) does not leave to mount.nfs, or not as they are written, of those that
// CheckMountOption of package volume lets through. Some eighty options were tried both ways,
// with util-linux 2.38 and nfs-utils 2.6: no others came out differently.
var (
	// How the mount is shared, which is set in a second step.
	propagation = []string{
		"shared", "rshared", "private", "rprivate", "slave", "rslave", "unbindable", "runbindable",
	}
	// Flags of the mount, which may have a value that says where they are set (ro=vfs).
	flags = []string{
		"ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "atime", "noatime", "diratime", "nodiratime",
		"relatime", "norelatime", "strictatime", "nostrictatime", "symfollow", "nosymfollow",
	}
)

// mountsItself reports whether mount(8) carries out any of the options itself.
func mountsItself(options []string) bool {
	for option := range strings.SplitSeq(strings.Join(options, ","), ",") {
		key, _, valued := strings.Cut(option, "=")
		if slices.Contains(propagation, key) || valued && slices.Contains(flags, key) {
			return true
		}
	}
	return false
}
