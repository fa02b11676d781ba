package provision

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sharevol.dev/sharevol/internal/fs"
	"sharevol.dev/sharevol/internal/volume"
)

// checkFree returns an error if a new volume may not have its data at a place. At that
// very place nobody else's may be, unless both are retained or sharevol did not make the
// other, and a retained volume joins it. Above and below it no provisioned volume's may
// be, of whatever provisioner: each would hold the other's data. (A hand-made volume is
// fine, and so is any of a whole share.)
func (p *Provisioner) checkFree(ctx context.Context, d volume.Directory, name string, retain bool) error {
	id := p.options.Caches.shareID(d.Share)
	at := p.options.Caches.at(d, id)
	taken := slices.DeleteFunc(slices.Clone(at), func(pv *v1.PersistentVolume) bool {
		return retain && (!isProvisioned(pv) || isRetained(pv))
	})
	for _, pv := range p.options.Caches.around(d, id) {
		if (isProvisioned(pv) || p.options.Caches.isAnothers(pv, d.Share)) && !slices.Contains(at, pv) {
			taken = append(taken, pv)
		}
	}
	return p.firstUser(ctx, taken, d, name)
}

// checkAlone returns an error if a volume other than name has its data at, above or
// below a place, on a server of another name that may be the same one too.
func (p *Provisioner) checkAlone(ctx context.Context, d volume.Directory, shareID, name string) error {
	if err := p.firstUser(ctx, p.options.Caches.around(d, shareID), d, name); err != nil {
		return err
	}
	for _, other := range p.options.Caches.aroundOnOthers(d) {
		theirs, _ := p.options.Caches.directoryOf(other)
		same, err := p.servers.same(ctx, d.Share.Server, theirs.Share.Server)
		if err == nil && !same {
			continue
		}
		used := p.firstUser(ctx, []*v1.PersistentVolume{other}, d, name)
		switch {
		case used != nil && err != nil: // nobody can tell: that is not errInUse
			return fmt.Errorf("%v; and %s may be %s: %w", used, theirs.Share.Server, d.Share.Server, err)
		case used != nil:
			return fmt.Errorf("%w; and %s is %s: they have an address in common", used, theirs.Share.Server, d.Share.Server)
		}
	}
	return nil
}

// checkNoShare returns an error if a share that is served begins at or below a place:
// what is on it is no part of the volume, whoever made its directory.
func (p *Provisioner) checkNoShare(ctx context.Context, d volume.Directory) error {
	served := map[volume.Share]string{}
	for _, f := range p.formats {
		for _, class := range p.options.Caches.ownClasses(f.name()) {
			parsed, _ := f.parseClass(class.Parameters, nil)
			served[parsed.Share] = "StorageClass " + class.Name
		}
	}
	for _, adoption := range p.options.Adopted {
		served[adoption.Share] = adoption.Name
	}
	for s, by := range served {
		root := volume.Directory{Share: s}.Full()
		if s == (volume.Share{}) || root != d.Full() && !strings.HasPrefix(root, d.Full()+"/") {
			continue
		}
		if same, err := p.servers.same(ctx, d.Share.Server, s.Server); err != nil || same {
			return errors.Join(fmt.Errorf("%s is or holds the share %s of %s", d.DisplayPath(), s, by), err)
		}
	}
	return nil
}

// errInUse says that another volume is known to have its data there; other errors, that
// nobody can tell.
var errInUse = errors.New("is in use by volume")

// firstUser returns an error that names the first of some volumes, other than name,
// that exists and has its data around a place. What the cache says is confirmed: it may
// hold volumes that were never saved or are gone.
func (p *Provisioner) firstUser(ctx context.Context, found []*v1.PersistentVolume, d volume.Directory, name string) error {
	seen := []string{name}
	for _, other := range found {
		if slices.Contains(seen, other.Name) {
			continue
		}
		seen = append(seen, other.Name)
		live, err := p.options.Client.CoreV1().PersistentVolumes().Get(ctx, other.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			continue
		case err != nil:
			return fmt.Errorf("can't tell whether volume %s still uses %s: %w", other.Name, d.DisplayPath(), err)
		}
		theirs, _ := p.options.Caches.directoryOf(live)
		return fmt.Errorf("%s %w %s (%s), whose data is at %s", d.DisplayPath(), errInUse, other.Name, live.Status.Phase, theirs.DisplayPath())
	}
	return nil
}

// isProvisioned reports whether sharevol made a volume, of whatever driver name.
func isProvisioned(pv *v1.PersistentVolume) bool { return pv.Annotations[annShareID] != "" }

// isAnothers reports whether another provisioner made a volume in a directory below the
// root of the share s. (A template that rendered nothing may have given one all of it.)
func (c *Caches) isAnothers(pv *v1.PersistentVolume, s volume.Share) bool {
	theirs, _ := c.directoryOf(pv)
	root := volume.Directory{Share: s}.Full()
	whole := strings.HasPrefix(root+"/", strings.TrimSuffix(theirs.Full(), "/")+"/")
	return pv.Annotations[annProvisionedBy] != "" && !whole
}

func isRetained(pv *v1.PersistentVolume) bool {
	if pv.Spec.CSI == nil {
		return pv.Annotations[annOnDelete] == string(volume.Retain)
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

// directoryOf returns where the data of a volume of any driver is, if it is on NFS.
func (c *Caches) directoryOf(pv *v1.PersistentVolume) (volume.Directory, bool) {
	switch {
	case pv.Spec.NFS != nil:
		for _, adoption := range c.adopted {
			if pv.Annotations[annProvisionedBy] != adoption.Name {
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
	return pv.Annotations[annShareID]
}
