package provision

import (
	"errors"
	"slices"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v8/controller"

	"sharevol.dev/sharevol/internal/volume"
)

// The annotations of a PersistentVolume that deleting it needs. The first two have
// the names that csi-provisioner gave them; the controller sets the third.
const (
	annDeletionSecretName      = "volume.kubernetes.io/provisioner-deletion-secret-name"
	annDeletionSecretNamespace = "volume.kubernetes.io/provisioner-deletion-secret-namespace"
	annProvisionedBy           = "pv.kubernetes.io/provisioned-by"
	annShareID                 = "csi.sharevol.dev/share-id"
	annOnDelete                = "csi.sharevol.dev/on-delete" // of a volume whose source has no place for it
	// annDirectoryGone says of a foreign volume since when its directory is gone.
	annDirectoryGone = "csi.sharevol.dev/directory-gone"
)

// request is what a claim asks for, with its class.
type request struct {
	volume.Rendered
	name  string // of the PersistentVolume
	class volume.Class
}

// request reads a claim and its class. Its error names every fault of both.
func (p *Provisioner) request(options controller.ProvisionOptions) (request, error) {
	claim := options.PVC
	class, errs := p.format.parseClass(options.StorageClass.Parameters, options.StorageClass.MountOptions)
	rendered, renderErrs := class.Render(volume.Claim{
		Namespace: claim.Namespace, Name: claim.Name, Volume: options.PVName,
		Labels: claim.Labels, Annotations: claim.Annotations,
	})
	errs = append(append(errs, renderErrs...), checkClaim(claim)...)
	return request{Rendered: rendered, name: options.PVName, class: class}, refusal(errs)
}

// checkClaim returns what in a claim sharevol can't serve. The controller would
// give such a claim an empty volume and say nothing. (It refuses claims for block
// volumes itself.)
func checkClaim(claim *v1.PersistentVolumeClaim) field.ErrorList {
	var errs field.ErrorList
	spec := field.NewPath("claim", "spec")
	if claim.Spec.Selector != nil {
		errs = append(errs, field.Forbidden(spec.Child("selector"), "a provisioned volume has no labels to select"))
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

func refusal(errs field.ErrorList) error {
	if len(errs) == 0 {
		return nil
	}
	return errors.New(volume.Faults(errs))
}

// persistentVolume returns the PersistentVolume that records what a claim got. All
// that serving and deleting it takes is in it: a class that is changed or deleted
// later changes nothing.
func (p *Provisioner) persistentVolume(r request, shareID string, options controller.ProvisionOptions) *v1.PersistentVolume {
	class, claim := options.StorageClass, options.PVC
	reclaim := v1.PersistentVolumeReclaimDelete
	if class.ReclaimPolicy != nil {
		reclaim = *class.ReclaimPolicy
	}
	filesystem := v1.PersistentVolumeFilesystem
	vol := volume.Volume{Directory: volume.Directory{Share: r.class.Share, SubDir: r.SubDir}, OnDelete: r.class.OnDelete}
	annotations := map[string]string{annShareID: shareID}
	if secret := r.ProvisionerSecret; secret != nil {
		annotations[annDeletionSecretName] = secret.Name
		annotations[annDeletionSecretNamespace] = secret.Namespace
	}
	pv := &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: options.PVName, Annotations: annotations},
		Spec: v1.PersistentVolumeSpec{
			Capacity:                      v1.ResourceList{v1.ResourceStorage: claim.Spec.Resources.Requests[v1.ResourceStorage]},
			AccessModes:                   claim.Spec.AccessModes,
			PersistentVolumeReclaimPolicy: reclaim,
			MountOptions:                  class.MountOptions,
			VolumeMode:                    &filesystem,
			NodeAffinity:                  nodeAffinity(class.AllowedTopologies),
		},
	}
	p.format.write(pv, vol, r.NodePublishSecret)
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
