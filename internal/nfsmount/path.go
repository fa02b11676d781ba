package nfsmount

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	mount "k8s.io/mount-utils"
)

// canonical returns target as mountinfo names it: absolute, with the links in
// its parents resolved. The last component is not looked at: it may be a mount
// whose server is dead.
func canonical(target string) (string, error) {
	if !filepath.IsAbs(target) || filepath.Clean(target) != target || target == "/" {
		return "", fmt.Errorf("mount target %q must be a clean absolute path below /", target)
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(target))
	if err != nil {
		return "", fmt.Errorf("mount target %q: %w", target, err)
	}
	return filepath.Join(parent, filepath.Base(target)), nil
}

// mountPoint returns where info is mounted. The kernel marks a mount point whose
// directory is gone from the server by a suffix.
func mountPoint(info mount.MountInfo) string {
	return strings.TrimSuffix(unescape(info.MountPoint), "//deleted")
}

// unescape undoes mountinfo's escapes of white space and backslashes, a
// backslash and three octal digits (proc_pid_mountinfo(5)).
func unescape(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if code, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(code))
				i += 3
				continue
			}
		}
		out.WriteByte(s[i])
	}
	return out.String()
}
