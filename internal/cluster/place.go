package cluster

import (
	"path"
	"strings"

	v1 "k8s.io/api/core/v1"

	"sharevol.dev/sharevol/internal/fs"
	"sharevol.dev/sharevol/internal/volume"
)

// isProvisioned reports whether sharevol made a volume, of whatever driver name.
func isProvisioned(pv *v1.PersistentVolume) bool { return pv.Annotations[AnnShareID] != "" }

// isAnothers reports whether another provisioner made a volume in a directory below the
// root of the share s. (A template that rendered nothing may have given one all of it.)
func (c *Cluster) isAnothers(pv *v1.PersistentVolume, s volume.Share) bool {
	theirs, _ := c.DirectoryOf(pv)
	root := volume.Directory{Share: s}.Full()
	whole := strings.HasPrefix(root+"/", strings.TrimSuffix(theirs.Full(), "/")+"/")
	return pv.Annotations[AnnProvisionedBy] != "" && !whole
}

func isRetained(pv *v1.PersistentVolume) bool {
	if pv.Spec.CSI == nil {
		return pv.Annotations[AnnOnDelete] == string(volume.Retain)
	}
	vol, errs := volume.FromAttributes(pv.Spec.CSI.VolumeAttributes, nil, fs.Types.Share)
	return len(errs) == 0 && vol.OnDelete == volume.Retain
}

// place is where a volume's data is, in one of the two ways to tell: by the path on some
// server, or by the share's id and the path below its root.
type place struct{ share, path string }

func (p place) key() string { return p.share + ":" + p.path }

// above returns the keys of all places above p.
func (p place) above() []string {
	var keys []string
	for p.path != "/" {
		p.path = path.Dir(p.path)
		keys = append(keys, p.key())
	}
	return keys
}

func places(d volume.Directory, shareID string) []place {
	all := []place{onAnyServer(d)}
	if shareID != "" {
		all = append(all, place{"id " + shareID, path.Join("/", string(d.SubDir))})
	}
	return all
}

// onAnyServer is the place of a path alone, whatever the server is called.
func onAnyServer(d volume.Directory) place { return place{"path", d.Full()} }

// DirectoryOf returns where the data of a volume of any driver is, if it is on NFS. It
// judges nothing: the place may lead out of the share.
func (c *Cluster) DirectoryOf(pv *v1.PersistentVolume) (volume.Directory, bool) {
	return c.names.DirectoryOf(pv)
}

// DirectoryOf is Cluster.DirectoryOf where no more is known than the names.
func (n Names) DirectoryOf(pv *v1.PersistentVolume) (volume.Directory, bool) {
	switch {
	case pv.Spec.NFS != nil:
		for _, adoption := range n.Adopted {
			if pv.Annotations[AnnProvisionedBy] != adoption.Name {
				continue
			}
			if d, err := adoption.Directory(pv.Spec.NFS.Server, pv.Spec.NFS.Path); err == nil {
				return d, true
			}
		}
		return volume.LocationFromAttributes(map[string]string{"server": pv.Spec.NFS.Server, "share": pv.Spec.NFS.Path}, fs.Types.Share)
	case pv.Spec.CSI != nil:
		if d, ok := volume.LocationFromAttributes(pv.Spec.CSI.VolumeAttributes, fs.Types.Share); ok {
			return d, true
		}
		v, err := volume.ParseHandle(pv.Spec.CSI.VolumeHandle)
		return v.Directory, err == nil
	}
	return volume.Directory{}, false
}

// idOf returns the id of the share that d, the directory of a volume, is on, "" if that
// is not known. The source of an in-tree volume says nothing about its share: without its
// adoption, it would seem to have all of it.
func idOf(pv *v1.PersistentVolume, d volume.Directory) string {
	if pv.Spec.NFS != nil && d.SubDir == "" {
		return ""
	}
	return pv.Annotations[AnnShareID]
}
