package node

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/fs"
	"sharevol.dev/sharevol/internal/mount"
)

// errPath says that a path can't be a target path. It is the caller's fault.
var errPath = errors.New("path")

// kubeletDir is kubelet's root directory on this node.
type kubeletDir struct {
	path    string
	mounter Mounter
}

// locate returns path as mountinfo names it: with the links above it resolved. It must
// be clean and absolute, and where kubelet has pods' CSI volumes (see isTarget), also
// once resolved, and not inside of what is mounted there; if not, the error matches
// errPath. Another error, which may match os.ErrNotExist, says why its parent can't be
// found. The path itself is not looked at: it may be a mount whose server is dead. Nor
// is anything below such a mount.
func (k kubeletDir) locate(path string) (string, error) {
	if path == "" {
		return "", fmt.Errorf("%w: required", errPath)
	}
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || strings.ContainsRune(path, 0) {
		return "", fmt.Errorf("%w: %q must be a clean absolute path", errPath, path)
	}
	if len(path) > maxPath || len(filepath.Base(path)) > maxName {
		return "", fmt.Errorf("%w: longer than Linux takes: %d bytes", errPath, len(path))
	}
	relative, below := strings.CutPrefix(path, k.path+"/")
	if !below || !isTarget(relative) {
		return "", k.outside(path)
	}
	root, err := filepath.EvalSymlinks(k.path)
	if err != nil {
		return "", err
	}
	mounts, err := k.mounter.Mounts()
	if err != nil {
		return "", err
	}
	// Before anything is looked at: the server of a mount may be dead.
	if err := checkInside(mounts, root, filepath.Join(root, relative)); err != nil {
		return "", err
	}
	parent, err := filepath.EvalSymlinks(filepath.Join(root, filepath.Dir(relative)))
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ENAMETOOLONG) || err != nil && strings.Contains(err.Error(), tooManyLinks) {
		return "", fmt.Errorf("%w: %w", errPath, err) // and so can never have been a target
	}
	if err != nil {
		return "", err
	}
	target := filepath.Join(parent, filepath.Base(path))
	if relative, below = strings.CutPrefix(target, root+"/"); !below || !isTarget(relative) {
		return "", k.outside(path)
	}
	return target, checkInside(mounts, root, target)
}

// checkInside refuses a path inside of what is mounted below the directory of all pods.
func checkInside(mounts []mount.Mounted, root, path string) error {
	for _, mounted := range mounts {
		if isBelow(path, mounted.Target) && isBelow(mounted.Target, root+"/pods") {
			return fmt.Errorf("%w: %q is inside of what is mounted on %s", errPath, path, mounted.Target)
		}
	}
	return nil
}

// isTarget reports whether a path below kubelet's directory is one at which kubelet has CSI
// volumes published: pods/UID/volumes/kubernetes.io~csi/NAME/mount. What follows the
// name may differ.
func isTarget(relative string) bool {
	parts := strings.Split(relative, "/")
	return len(parts) > 5 && parts[0] == "pods" && parts[2] == "volumes" && parts[3] == "kubernetes.io~csi"
}

func (k kubeletDir) outside(path string) error {
	return fmt.Errorf("%w: %q must be below %s/pods/UID/volumes/kubernetes.io~csi/NAME (see --kubelet-dir)", errPath, path, k.path)
}

const (
	maxPath = 4000 // less than Linux's PATH_MAX by what a resolved link may add
	maxName = 255  // Linux's NAME_MAX
	// tooManyLinks is filepath.EvalSymlinks' text for a loop, for which it has no error value.
	tooManyLinks = "too many links"
)

// isBelow reports whether path is strictly below dir.
func isBelow(path, dir string) bool { return strings.HasPrefix(path, dir+"/") }

// volumes returns the mounts of our types on target paths of CSI volumes.
func (k kubeletDir) volumes() ([]mount.Mounted, error) {
	root, err := filepath.EvalSymlinks(k.path)
	if err != nil {
		return nil, err
	}
	all, err := k.mounter.Mounts()
	if err != nil {
		return nil, err
	}
	var volumes []mount.Mounted
	for _, m := range all {
		relative, below := strings.CutPrefix(m.Target, root+"/")
		if _, ours := fs.Types.Of(m.Layer); ours && below && isTarget(relative) {
			volumes = append(volumes, m)
		}
	}
	return volumes, nil
}
