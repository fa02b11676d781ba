package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sharevol.dev/sharevol/internal/volume"
)

// CheckFree returns an error if a new volume may not have its data at a place. At that
// very place nobody else's may be, unless both are retained or sharevol did not make the
// other, and a retained volume joins it. Above and below it no provisioned volume's may
// be, of whatever provisioner: each would hold the other's data. (A hand-made volume is
// fine, and so is any of a whole share.)
func (c *Cluster) CheckFree(ctx context.Context, d volume.Directory, name string, retain bool) error {
	id := c.ShareID(d.Share)
	at := c.at(d, id)
	taken := slices.DeleteFunc(slices.Clone(at), func(pv *v1.PersistentVolume) bool {
		return retain && (!isProvisioned(pv) || isRetained(pv))
	})
	for _, pv := range c.around(d, id) {
		if (isProvisioned(pv) || c.isAnothers(pv, d.Share)) && !slices.Contains(at, pv) {
			taken = append(taken, pv)
		}
	}
	return c.firstUser(ctx, taken, d, name)
}

// CheckAlone returns an error if a volume other than name has its data at, above or
// below a place, on a server of another name that may be the same one too.
func (c *Cluster) CheckAlone(ctx context.Context, d volume.Directory, shareID, name string) error {
	if err := c.firstUser(ctx, c.around(d, shareID), d, name); err != nil {
		return err
	}
	for _, other := range c.aroundOnOthers(d) {
		theirs, _ := c.DirectoryOf(other)
		same, err := c.servers.same(ctx, d.Share.Server, theirs.Share.Server)
		if err == nil && !same {
			continue
		}
		used := c.firstUser(ctx, []*v1.PersistentVolume{other}, d, name)
		switch {
		case used != nil && err != nil: // nobody can tell: that is not ErrInUse
			return fmt.Errorf("%v; and %s may be %s: %w", used, theirs.Share.Server, d.Share.Server, err)
		case used != nil:
			return fmt.Errorf("%w; and %s is %s: they have an address in common", used, theirs.Share.Server, d.Share.Server)
		}
	}
	return nil
}

// CheckNoShare returns an error if a share that is served begins at or below a place:
// what is on it is no part of the volume, whoever made its directory.
func (c *Cluster) CheckNoShare(ctx context.Context, d volume.Directory) error {
	served := map[volume.Share]string{}
	for _, f := range c.formats {
		for _, class := range c.ClassesOf(f.Provisioner()) {
			parsed, _ := f.ReadClass(class.Parameters, nil)
			served[parsed.Share] = "StorageClass " + class.Name
		}
	}
	for _, adoption := range c.names.Adopted {
		served[adoption.Share] = adoption.Name
	}
	for s, by := range served {
		root := volume.Directory{Share: s}.Full()
		if s == (volume.Share{}) || root != d.Full() && !strings.HasPrefix(root, d.Full()+"/") {
			continue
		}
		if same, err := c.servers.same(ctx, d.Share.Server, s.Server); err != nil || same {
			return errors.Join(fmt.Errorf("%s is or holds the share %s of %s", d.DisplayPath(), s, by), err)
		}
	}
	return nil
}

// ErrInUse says that another volume is known to have its data there; other errors, that
// nobody can tell.
var ErrInUse = errors.New("is in use by volume")

// firstUser returns an error that names the first of some volumes, other than name,
// that exists and has its data around a place. What the cache says is confirmed: it may
// hold volumes that were never saved or are gone.
func (c *Cluster) firstUser(ctx context.Context, found []*v1.PersistentVolume, d volume.Directory, name string) error {
	seen := []string{name}
	for _, other := range found {
		if slices.Contains(seen, other.Name) {
			continue
		}
		seen = append(seen, other.Name)
		live, err := c.client.CoreV1().PersistentVolumes().Get(ctx, other.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			continue
		case err != nil:
			return fmt.Errorf("can't tell whether volume %s still uses %s: %w", other.Name, d.DisplayPath(), err)
		}
		theirs, _ := c.DirectoryOf(live)
		return fmt.Errorf("%s %w %s (%s), whose data is at %s", d.DisplayPath(), ErrInUse, other.Name, live.Status.Phase, theirs.DisplayPath())
	}
	return nil
}
