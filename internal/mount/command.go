package mount

import (
	"os/exec"
	"slices"
	"strings"

	mountutils "k8s.io/mount-utils"
)

// findHelper returns the path of a mount helper. mount(8) runs it from /sbin, whatever PATH says.
func findHelper(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	return exec.LookPath("/sbin/" + name)
}

// command returns the command that mounts spec on target: the helper itself, if there is
// one, but mount(8) where that has a part in it. Neither notes the mount in
// /run/mount/utab (-n): umount(8) would have to take it out again, and needs none of it.
func (spec Spec) command(target string) (name string, args []string, err error) {
	joined := strings.Join(spec.Options, ",")
	if spec.Helper == "" || mountsItself(joined) {
		return "mount", append([]string{"-n"}, mountutils.MakeMountArgs(spec.Source, target, spec.Type, spec.Options)...), nil
	}
	args = []string{spec.Source, target, "-n"} // what is mounted where has to come first
	if joined != "" {
		args = append(args, "-o", joined)
	}
	name, err = findHelper(spec.Helper)
	return name, args, err
}

// Options that mount(8) does not leave to the helper, or not as they are written, of those
// that package fs lets through. Some eighty options were tried both ways, with util-linux
// 2.38 and mount.nfs of nfs-utils 2.6: no others came out differently.
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
func mountsItself(options string) bool {
	for option := range strings.SplitSeq(options, ",") {
		key, _, valued := strings.Cut(option, "=")
		if slices.Contains(propagation, key) || valued && slices.Contains(flags, key) {
			return true
		}
	}
	return false
}
