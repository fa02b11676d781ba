package cluster

import (
	"slices"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"sharevol.dev/sharevol/internal/fs"
	"sharevol.dev/sharevol/internal/volume"
)

// The kinds of volumes that a provisioner has to do with.
const (
	// KindProvisioned are those that sharevol has made and deletes.
	KindProvisioned = "provisioned"
	// KindAdopted are those that another provisioner has made and sharevol deletes.
	KindAdopted = "adopted"
	// KindStatic are hand-made ones. Their directories are never touched.
	KindStatic = "static"
)

// Inspection is what a provisioner makes of a PersistentVolume.
type Inspection struct {
	Kind string
	volume.Volume
	MountOptions []string
	// ShareID is the id that the share had when the volume was made, empty if that is
	// not known.
	ShareID string
	// Fault is why the volume can't be deleted or, a static one, not be used; nil if
	// there is no reason in the volume itself.
	Fault error
}

// Inspect says what a provisioner of these names makes of pv, and whether it has to do
// with it at all.
func (all Formats) Inspect(pv *v1.PersistentVolume) (Inspection, bool) {
	for _, f := range all {
		if pv.Annotations[AnnProvisionedBy] != f.Provisioner() {
			continue
		}
		vol, err := f.Read(pv)
		kind := KindProvisioned
		if vol.Adopted {
			kind = KindAdopted
		}
		return Inspection{Kind: kind, Volume: vol.Volume, MountOptions: vol.MountOptions, ShareID: pv.Annotations[AnnShareID], Fault: err}, true
	}
	if csi := pv.Spec.CSI; csi == nil || csi.Driver != all[0].Provisioner() {
		return Inspection{}, false
	}
	return inspectStatic(pv), true
}

func inspectStatic(pv *v1.PersistentVolume) Inspection {
	path := field.NewPath("spec", "csi", "volumeAttributes")
	directory, errs := volume.DirectoryFromAttributes(pv.Spec.CSI.VolumeAttributes, path, fs.Types.Share)
	more, optionErrs := volume.MountOptionsFromAttributes(pv.Spec.CSI.VolumeAttributes, path, fs.Types.Options(directory.Share).Check)
	return Inspection{
		Kind: KindStatic, Volume: volume.Volume{Directory: directory, OnDelete: volume.Retain},
		MountOptions: append(slices.Clone(pv.Spec.MountOptions), more...),
		Fault:        Invalid(append(append(errs, optionErrs...), checkMountOptions(pv, directory.Share)...)),
	}
}

// ReadClass reads a class with all its faults, and says whether it is one of these names.
func (all Formats) ReadClass(class *storagev1.StorageClass) (volume.Class, field.ErrorList, bool) {
	for _, f := range all {
		if class.Provisioner == f.Provisioner() {
			parsed, errs := f.ReadClass(class.Parameters, class.MountOptions)
			return parsed, errs, true
		}
	}
	return volume.Class{}, nil, false
}
