package mount

import (
	"errors"
	"io/fs"
)

// Layer is one mount on a directory.
type Layer struct {
	Source string // what is mounted, for NFS "server:/path"
	FSType string // as the kernel names it: "nfs4", "nfs", ...
	// Device is the file system's number, "major:minor". Mounts with the same one share
	// what the kernel knows of the server, and hang together.
	Device string
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
