package provision

import (
	"slices"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"sharevol.dev/sharevol/internal/cluster"
	"sharevol.dev/sharevol/internal/volume"
)

// Request asks for the volume of a claim.
type Request struct {
	// Name of the PersistentVolume.
	Name  string
	Class *storagev1.StorageClass
	Claim *v1.PersistentVolumeClaim
}

// place is where a Request comes to, and how.
type place struct {
	volume.Rendered
	class volume.Class
}

func (p place) directory() volume.Directory {
	return volume.Directory{Share: p.class.Share, SubDir: p.SubDir}
}

// read reads a claim and its class. Its error names every fault of both.
func (r Request) read(f cluster.Format) (place, error) {
	class, errs := f.ReadClass(r.Class.Parameters, r.Class.MountOptions)
	rendered, renderErrs := class.Render(volume.Claim{
		Namespace: r.Claim.Namespace, Name: r.Claim.Name, Volume: r.Name,
		Labels: r.Claim.Labels, Annotations: r.Claim.Annotations,
	})
	errs = append(append(errs, renderErrs...), checkClaim(r.Claim)...)
	return place{Rendered: rendered, class: class}, cluster.Invalid(errs)
}

// checkClaim returns what in a claim sharevol can't serve. The controller would
// give such a claim an empty volume and say nothing. (It refuses claims for block
// volumes itself.)
func checkClaim(claim *v1.PersistentVolumeClaim) field.ErrorList {
	var errs field.ErrorList
	spec := field.NewPath("claim", "spec")
	if claim.Spec.Selector != nil {
		errs = append(errs, field.Forbidden(spec.Child("selector"), "selectors are not supported for dynamic provisioning"))
	}
	if claim.Spec.DataSource != nil {
		errs = append(errs, field.Forbidden(spec.Child("dataSource"), "volumes can't be made from snapshots or other volumes"))
	}
	if claim.Spec.DataSourceRef != nil {
		errs = append(errs, field.Forbidden(spec.Child("dataSourceRef"), "volumes can't be made from snapshots or other volumes"))
	}
	if claim.Spec.VolumeAttributesClassName != nil {
		errs = append(errs, field.Forbidden(spec.Child("volumeAttributesClassName"), "volumes have no attributes to change; such a claim would never be bound"))
	}
	modes := []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce, v1.ReadOnlyMany, v1.ReadWriteMany, v1.ReadWriteOncePod}
	for i, mode := range claim.Spec.AccessModes {
		if !slices.Contains(modes, mode) {
			errs = append(errs, field.NotSupported(spec.Child("accessModes").Index(i), mode, modes))
		}
	}
	return errs
}

// persistentVolume returns the PersistentVolume that records what a claim got. All
// that serving and deleting it takes is in it: a class that is changed or deleted
// later changes nothing.
func (r Request) persistentVolume(f cluster.Format, at place, shareID string) *v1.PersistentVolume {
	class, claim := r.Class, r.Claim
	reclaim := v1.PersistentVolumeReclaimDelete
	if class.ReclaimPolicy != nil {
		reclaim = *class.ReclaimPolicy
	}
	filesystem := v1.PersistentVolumeFilesystem
	vol := volume.Volume{Directory: at.directory(), OnDelete: at.class.OnDelete}
	annotations := map[string]string{cluster.AnnShareID: shareID}
	if secret := at.ProvisionerSecret; secret != nil {
		annotations[cluster.AnnDeletionSecretName] = secret.Name
		annotations[cluster.AnnDeletionSecretNamespace] = secret.Namespace
	}
	pv := &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: r.Name, Annotations: annotations},
		Spec: v1.PersistentVolumeSpec{
			Capacity:                      v1.ResourceList{v1.ResourceStorage: claim.Spec.Resources.Requests[v1.ResourceStorage]},
			AccessModes:                   claim.Spec.AccessModes,
			PersistentVolumeReclaimPolicy: reclaim,
			MountOptions:                  class.MountOptions,
			VolumeMode:                    &filesystem,
			NodeAffinity:                  nodeAffinity(class.AllowedTopologies),
		},
	}
	f.Write(pv, vol, at.NodePublishSecret)
	return pv
}

// nodeAffinity lets pods use a volume only on nodes of the class's topologies.
// Each term is an alternative, the expressions within one all hold.
func nodeAffinity(topologies []v1.TopologySelectorTerm) *v1.VolumeNodeAffinity {
	if len(topologies) == 0 {
		return nil
	}
	var terms []v1.NodeSelectorTerm
	for _, topology := range topologies {
		var term v1.NodeSelectorTerm
		for _, e := range topology.MatchLabelExpressions {
			term.MatchExpressions = append(term.MatchExpressions, v1.NodeSelectorRequirement{Key: e.Key, Operator: v1.NodeSelectorOpIn, Values: e.Values})
		}
		terms = append(terms, term)
	}
	return &v1.VolumeNodeAffinity{Required: &v1.NodeSelector{NodeSelectorTerms: terms}}
}
