package node

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/nfsmount"
)

// errPath says that a path is none on which a volume can be. It is the caller's fault.
var errPath = errors.New("path")

// folder is kubelet's folder on this node.
type folder struct {
	path    string
	mounter Mounter
}

// locate returns path as mountinfo names it: with the links above it resolved. It must
// be clean and absolute, and where kubelet has pods' CSI volumes (see isTarget), also
// once resolved, and not inside of what is mounted there; if not, the error matches
// errPath. Another error, which may match fs.ErrNotExist, says why its parent can't be
// found. The path itself is not looked at: it may be a mount whose server is dead. Nor
// is anything below such a mount.
func (f folder) locate(path string) (string, error) {
	if path == "" {
		return "", fmt.Errorf("%w: required", errPath)
	}
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || strings.ContainsRune(path, 0) {
		return "", fmt.Errorf("%w: %q must be a clean absolute path", errPath, path)
	}
	if len(path) > maxPath || len(filepath.Base(path)) > maxName {
		return "", fmt.Errorf("%w: longer than Linux takes: %d bytes", errPath, len(path))
	}
	relative, below := strings.CutPrefix(path, f.path+"/")
	if !below || !isTarget(relative) {
		return "", f.outside(path)
	}
	root, err := filepath.EvalSymlinks(f.path)
	if err != nil {
		return "", err
	}
	mounts, err := f.mounter.Mounts()
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
		return "", f.outside(path)
	}
	return target, checkInside(mounts, root, target)
}

// checkInside refuses a path inside of what is mounted below the folder of all pods.
func checkInside(mounts []nfsmount.Mounted, root, path string) error {
	for _, mounted := range mounts {
		if within(path, mounted.Target) && within(mounted.Target, root+"/pods") {
			return fmt.Errorf("%w: %q is inside of what is mounted on %s", errPath, path, mounted.Target)
		}
	}
	return nil
}

// isTarget reports whether a path below kubelet's folder is one at which kubelet has CSI
// volumes published: pods/UID/volumes/kubernetes.io~csi/NAME/mount. What follows the
// name may differ.
func isTarget(relative string) bool {
	parts := strings.Split(relative, "/")
	return len(parts) > 5 && parts[0] == "pods" && parts[2] == "volumes" && parts[3] == "kubernetes.io~csi"
}

func (f folder) outside(path string) error {
	return fmt.Errorf("%w: %q is not below pods/UID/volumes/kubernetes.io~csi/NAME of kubelet's folder %s (--kubelet-dir)", errPath, path, f.path)
}

const (
	maxPath = 4000 // less than Linux's PATH_MAX by what a resolved link may add
	maxName = 255  // Linux's NAME_MAX
	// tooManyLinks is what filepath.EvalSymlinks says of a loop, which has no error of its own.
	tooManyLinks = "too many links"
)

// within reports whether path is strictly below dir.
func within(path, dir string) bool { return strings.HasPrefix(path, dir+"/") }

// volumes returns the NFS mounts on target paths of CSI volumes.
func (f folder) volumes() ([]nfsmount.Mounted, error) {
	root, err := filepath.EvalSymlinks(f.path)
	if err != nil {
		return nil, err
	}
	all, err := f.mounter.Mounts()
	if err != nil {
		return nil, err
	}
	var volumes []nfsmount.Mounted
	for _, m := range all {
		if relative, below := strings.CutPrefix(m.Target, root+"/"); below && isTarget(relative) && m.NFS() {
			volumes = append(volumes, m)
		}
	}
	return volumes, nil
}
