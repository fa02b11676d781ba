package provision

import (
	"context"
	"errors"
	"slices"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"sharevol.dev/sharevol/internal/fs"
	"sharevol.dev/sharevol/internal/share"
	"sharevol.dev/sharevol/internal/volume"
)

// The kinds of volumes that a Provisioner has to do with.
const (
	// KindProvisioned are those that sharevol has made and deletes.
	KindProvisioned = "provisioned"
	// KindAdopted are those that another provisioner has made and sharevol deletes.
	KindAdopted = "adopted"
	// KindStatic are hand-made ones. Their directories are never touched.
	KindStatic = "static"
)

// Inspector reads classes and volumes as a Provisioner does, and does nothing else. It
// may be used concurrently.
type Inspector struct{ provisioner *Provisioner }

// NewInspector returns an Inspector for a Provisioner with options, of which only
// DriverName, Adopted, DefaultOnDelete and Client are used. class returns a class of the
// cluster, nil for one that is not there.
func NewInspector(options Options, class func(name string) *storagev1.StorageClass) *Inspector {
	formats := []format{csiFormat{driver: options.DriverName, onDelete: options.DefaultOnDelete}}
	for _, adoption := range options.Adopted {
		formats = append(formats, nfsFormat{Adoption: adoption, class: class})
	}
	options.Caches = &Caches{adopted: options.Adopted}
	return &Inspector{&Provisioner{options: options, formats: formats}}
}

// Inspection is what a Provisioner makes of a PersistentVolume.
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

// Volume says what the provisioner makes of pv, and whether it has to do with it at all.
func (i *Inspector) Volume(pv *v1.PersistentVolume) (Inspection, bool) {
	for _, f := range i.provisioner.formats {
		if pv.Annotations[annProvisionedBy] != f.name() {
			continue
		}
		vol, err := f.read(pv)
		kind := KindProvisioned
		if vol.foreign {
			kind = KindAdopted
		}
		return Inspection{Kind: kind, Volume: vol.Volume, MountOptions: vol.mountOptions, ShareID: pv.Annotations[annShareID], Fault: err}, true
	}
	if csi := pv.Spec.CSI; csi == nil || csi.Driver != i.provisioner.options.DriverName {
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
		Fault:        refusal(append(append(errs, optionErrs...), checkMountOptions(pv, directory.Share)...)),
	}
}

// Class reads a class with all its faults, and says whether it is one that the
// provisioner serves.
func (i *Inspector) Class(class *storagev1.StorageClass) (volume.Class, field.ErrorList, bool) {
	for _, f := range i.provisioner.formats {
		if class.Provisioner == f.name() {
			parsed, errs := f.parseClass(class.Parameters, class.MountOptions)
			return parsed, errs, true
		}
	}
	return volume.Class{}, nil, false
}

// Directory returns where the data of a volume of any driver is, if it is on NFS. It
// judges nothing: the place may lead out of the share.
func (i *Inspector) Directory(pv *v1.PersistentVolume) (volume.Directory, bool) {
	return i.provisioner.options.Caches.directoryOf(pv)
}

// ErrSecretPerClaim says that a class does not tell how its share is mounted.
var ErrSecretPerClaim = errors.New("its mount options come from a secret, which may be another one for each claim")

// ClassRef returns how the share of a class is mounted. It is
// ErrSecretPerClaim if the class does not tell.
func (i *Inspector) ClassRef(class volume.Class) (share.Ref, error) {
	ref := share.Ref{Share: class.Share, MountOptions: class.MountOptions}
	if class.ProvisionerSecret != nil {
		return ref, ErrSecretPerClaim
	}
	return ref, nil
}

// VolumeRef returns how the share of a volume is mounted. It reads the secret that the
// volume names, if it names one.
func (i *Inspector) VolumeRef(ctx context.Context, pv *v1.PersistentVolume, of Inspection) (share.Ref, error) {
	return i.provisioner.ref(ctx, of.Share, of.MountOptions, deletionSecret(pv))
}

// SecretOf names the secret that VolumeRef reads for a volume, empty for none.
func SecretOf(pv *v1.PersistentVolume) string {
	if secret := deletionSecret(pv); secret != nil {
		return secret.Namespace + "/" + secret.Name
	}
	return ""
}
