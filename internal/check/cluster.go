package check

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sharevol.dev/sharevol/internal/cluster"
	"sharevol.dev/sharevol/internal/volume"
)

// pageSize is how many objects are asked for at a time.
const pageSize = 500

// state is what the API server says at one time.
type state struct {
	names   cluster.Names
	formats cluster.Formats
	classes []classState
	volumes []volumeState   // by name
	claims  map[string]bool // by UID
}

// classState is a class of the provisioner's.
type classState struct {
	object *storagev1.StorageClass
	class  volume.Class
	faults []string
}

// volumeState is a PersistentVolume: one of the provisioner's, or one of any driver
// whose data is on NFS.
type volumeState struct {
	name      string
	leaving   bool // it is deleted, or will be as nothing claims it any more
	directory volume.Directory
	located   bool // whether directory is known
	shareID   string
	ours      *cluster.Inspection  // nil if the provisioner has nothing to do with it
	object    *v1.PersistentVolume // of ours only
}

// read reads all classes, volumes and claims, some at a time.
func (c *check) read(ctx context.Context) (*state, error) {
	s := &state{claims: map[string]bool{}, names: c.options.Names}
	s.formats = s.names.Formats(s.class)
	err := each(ctx, "classes", c.options.Client.StorageV1().StorageClasses().List, func() { s.classes = nil },
		func(list *storagev1.StorageClassList) {
			for i := range list.Items {
				s.addClass(&list.Items[i])
			}
		})
	if err == nil {
		err = each(ctx, "volumes", c.options.Client.CoreV1().PersistentVolumes().List, func() { s.volumes = nil },
			func(list *v1.PersistentVolumeList) {
				for i := range list.Items {
					s.addVolume(&list.Items[i])
				}
			})
	}
	if err == nil {
		err = each(ctx, "claims", c.options.Client.CoreV1().PersistentVolumeClaims(metav1.NamespaceAll).List, func() { clear(s.claims) },
			func(list *v1.PersistentVolumeClaimList) {
				for i := range list.Items {
					s.claims[string(list.Items[i].UID)] = true
				}
			})
	}
	slices.SortFunc(s.classes, func(a, b classState) int { return cmp.Compare(a.object.Name, b.object.Name) })
	slices.SortFunc(s.volumes, func(a, b volumeState) int { return cmp.Compare(a.name, b.name) })
	return s, err
}

// each hands all objects that list lists to page, some at a time. If the API server
// forgets in between what it was listing, it is all begun again after reset.
func each[L metav1.ListInterface](ctx context.Context, what string, list func(context.Context, metav1.ListOptions) (L, error), reset func(), page func(L)) error {
	options := metav1.ListOptions{Limit: pageSize}
	for {
		some, err := list(ctx, options)
		switch {
		case apierrors.IsResourceExpired(err) && options.Limit != 0:
			reset()
			options = metav1.ListOptions{}
			continue
		case err != nil:
			return fmt.Errorf("list the cluster's %s: %w", what, err)
		}
		page(some)
		if options.Continue = some.GetContinue(); options.Continue == "" {
			return nil
		}
	}
}

// class returns one of the provisioner's classes, nil if it is not there.
func (s *state) class(name string) *storagev1.StorageClass {
	for _, class := range s.classes {
		if class.object.Name == name {
			return class.object
		}
	}
	return nil
}

func (s *state) addClass(object *storagev1.StorageClass) {
	class, errs, ours := s.formats.ReadClass(object)
	if !ours {
		return
	}
	state := classState{object: object, class: class, faults: []string{}}
	for _, err := range errs {
		state.faults = append(state.faults, oneLine(err))
	}
	s.classes = append(s.classes, state)
}

func (s *state) addVolume(pv *v1.PersistentVolume) {
	pv.ManagedFields = nil
	v := volumeState{name: pv.Name, leaving: isLeaving(pv)}
	v.directory, v.located = s.names.DirectoryOf(pv)
	if inspection, ours := s.formats.Inspect(pv); ours {
		v.ours, v.object, v.shareID = &inspection, pv, inspection.ShareID
	} else if !v.located {
		return
	}
	s.volumes = append(s.volumes, v)
}

// isLeaving says whether the directory of a volume may be gone before the volume.
func isLeaving(pv *v1.PersistentVolume) bool {
	given := pv.Status.Phase == v1.VolumeReleased || pv.Status.Phase == v1.VolumeFailed
	return pv.DeletionTimestamp != nil || given && pv.Spec.PersistentVolumeReclaimPolicy == v1.PersistentVolumeReclaimDelete
}

// describeCluster begins the report with the cluster's classes and volumes.
func (c *check) describeCluster(now time.Time) *Report {
	r := &Report{
		Driver: c.options.Names.Driver, Cluster: c.cluster, Time: now.UTC().Truncate(time.Second),
		Problems: []string{}, Classes: []Class{}, Volumes: []Volume{}, Shares: []*Share{},
	}
	for _, state := range c.state.classes {
		class := Class{
			Name: state.object.Name, Provisioner: state.object.Provisioner, Share: shareName(state.class.Share), OnDelete: string(state.class.OnDelete),
			Ignored: append([]string{}, state.class.Ignored...), Faults: state.faults,
		}
		class.Served = len(class.Faults) == 0
		if len(c.options.Premounted) > 0 && class.Share != "" {
			if _, here := c.options.Premounted[state.class.Share]; !here {
				class.Served, class.Elsewhere = false, true
			}
		}
		r.Classes = append(r.Classes, class)
	}
	for _, state := range c.state.volumes {
		if state.ours != nil {
			r.Volumes = append(r.Volumes, describeVolume(state))
		}
	}
	return r
}

func describeVolume(state volumeState) Volume {
	pv, ours := state.object, state.ours
	v := Volume{
		Name: state.name, Kind: ours.Kind, Phase: string(pv.Status.Phase), Class: pv.Spec.StorageClassName,
		Share: shareName(ours.Share), SubDir: string(ours.SubDir), OnDelete: string(ours.OnDelete), Faults: []string{},
	}
	if claim := pv.Spec.ClaimRef; claim != nil {
		v.Claim = claim.Namespace + "/" + claim.Name
	}
	if ours.Fault != nil {
		v.Faults = append(v.Faults, oneLine(ours.Fault))
	}
	return v
}

func shareName(s volume.Share) string {
	if s == (volume.Share{}) {
		return ""
	}
	return s.String()
}

// volumeNames returns the names of all volumes.
func (s *state) volumeNames() map[string]bool {
	names := make(map[string]bool, len(s.volumes))
	for _, v := range s.volumes {
		names[v.name] = true
	}
	return names
}
