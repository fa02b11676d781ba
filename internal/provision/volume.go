package provision

import (
	"errors"
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v8/controller"

	"sharevol.dev/sharevol/internal/volume"
)

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

// persistentVolume returns the PersistentVolume that records vol for a claim. All
// that serving and deleting it takes is in it: a class that is changed or deleted
// later changes nothing.
func (p *Provisioner) persistentVolume(vol volume.Volume, options controller.ProvisionOptions) *v1.PersistentVolume {
	class, claim := options.StorageClass, options.PVC
	reclaim := v1.PersistentVolumeReclaimDelete
	if class.ReclaimPolicy != nil {
		reclaim = *class.ReclaimPolicy
	}
	filesystem := v1.PersistentVolumeFilesystem
	return &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: options.PVName},
		Spec: v1.PersistentVolumeSpec{
			Capacity:                      v1.ResourceList{v1.ResourceStorage: claim.Spec.Resources.Requests[v1.ResourceStorage]},
			AccessModes:                   claim.Spec.AccessModes,
			PersistentVolumeReclaimPolicy: reclaim,
			MountOptions:                  class.MountOptions,
			VolumeMode:                    &filesystem,
			NodeAffinity:                  nodeAffinity(class.AllowedTopologies),
			PersistentVolumeSource: v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{
				Driver:           p.driverName,
				VolumeHandle:     vol.Handle(options.PVName),
				VolumeAttributes: vol.Attributes(),
			}},
		},
	}
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

// volumeOf reads what pv records, and refuses whatever this provisioner can't
// have written: the directory of a PersistentVolume of ours has its name.
func (p *Provisioner) volumeOf(pv *v1.PersistentVolume) (volume.Volume, error) {
	csi := pv.Spec.CSI
	if csi == nil || csi.Driver != p.driverName {
		return volume.Volume{}, fmt.Errorf("PersistentVolume %s is not a volume of the CSI driver %s", pv.Name, p.driverName)
	}
	path := field.NewPath("spec", "csi", "volumeAttributes")
	vol, errs := volume.FromAttributes(csi.VolumeAttributes, path)
	if len(errs) == 0 && vol.SubDir != volume.SubDir(pv.Name) {
		errs = append(errs, field.Invalid(path.Key("subDir"), string(vol.SubDir), "must be the PersistentVolume's name to be removed"))
	}
	for i, option := range pv.Spec.MountOptions {
		if err := volume.CheckMountOption(option); err != nil {
			errs = append(errs, field.Invalid(field.NewPath("spec", "mountOptions").Index(i), option, err.Error()))
		}
	}
	return vol, refusal(errs)
}
