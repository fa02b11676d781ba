package nfsmount

import (
	"errors"
	"io/fs"
	"path"
	"strings"
)

// Layer is one mount on a directory.
type Layer struct {
	Source string // what is mounted, for NFS "server:/path"
	FSType string // "nfs4", "nfs", ...
	// Device is the file system's number, "major:minor". Mounts with the same one share
	// what the kernel knows of the server, and hang together.
	Device string
}

// Shows reports whether l is the NFS export source ("server:/path"). Only the
// path is compared: where two names of one server share a superblock, the kernel
// shows every mount of it under the name that came first.
func (l Layer) Shows(source string) bool {
	return l.NFS() && l.Path() == remotePath(source)
}

// NFS reports whether l is an NFS mount.
func (l Layer) NFS() bool { return strings.HasPrefix(l.FSType, "nfs") }

// Path returns the path on the server that l shows, clean, or "" if it is no NFS mount.
func (l Layer) Path() string {
	if !l.NFS() {
		return ""
	}
	return remotePath(l.Source)
}

func remotePath(source string) string {
	_, after, found := strings.Cut(source, ":/")
	if !found {
		return ""
	}
	return path.Clean("/" + after)
}

// Mounted is a layer and where it is.
type Mounted struct {
	Target string
	Layer
}

// Layers returns what is mounted on target itself, the lowest first, from
// mountinfo alone.
func (m *Mounter) Layers(target string) ([]Layer, error) {
	target, err := canonical(target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return m.layers(target)
}

// layers is Layers for a canonical target.
func (m *Mounter) layers(target string) ([]Layer, error) {
	found, err := mounts(m.options.MountInfo, func(on string) bool { return on == target })
	if err != nil {
		return nil, err
	}
	layers := make([]Layer, 0, len(found))
	for _, mounted := range found {
		layers = append(layers, mounted.Layer)
	}
	return layers, nil
}

// Mounts returns every mount of this machine, from mountinfo alone.
func (m *Mounter) Mounts() ([]Mounted, error) {
	return mounts(m.options.MountInfo, func(string) bool { return true })
}
