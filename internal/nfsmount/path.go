package nfsmount

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	utilio "k8s.io/utils/io"
)

// consistentReads is how often a changing mount table is read before that is an error.
const consistentReads = 10

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

// mounts returns the lines of a mountinfo file that want picks, in its order: of the
// mounts on one target the lowest comes first.
//
// mount-utils' parser is not used: one mount with an empty source, anywhere on the
// node, makes it fail for all others.
func mounts(mountInfo string, want func(target string) bool) ([]Mounted, error) {
	// Before Linux 5.8 a table that changes while it is read may lack mounts that
	// are there: it is read until it comes out the same twice.
	data, err := utilio.ConsistentRead(mountInfo, consistentReads)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", mountInfo, err)
	}
	infos, err := mountinfo.GetMountsFromReader(bytes.NewReader(data), func(info *mountinfo.Info) (skip, stop bool) {
		return !want(mountPoint(info)), false
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", mountInfo, err)
	}
	found := make([]Mounted, 0, len(infos))
	for _, info := range infos {
		device := fmt.Sprintf("%d:%d", info.Major, info.Minor)
		found = append(found, Mounted{mountPoint(info), Layer{Source: info.Source, FSType: info.FSType, Device: device}})
	}
	return found, nil
}

// mountPoint returns where a mount is. The kernel marks one whose directory is gone
// from the server.
func mountPoint(info *mountinfo.Info) string { return strings.TrimSuffix(info.Mountpoint, "//deleted") }
