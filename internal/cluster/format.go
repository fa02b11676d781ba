package cluster

import (
	"errors"
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"sharevol.dev/sharevol/internal/fs"
	"sharevol.dev/sharevol/internal/volume"
)

// The annotations of a PersistentVolume. The first three have the names that the
// controller library and csi-provisioner gave them.
const (
	AnnProvisionedBy           = "pv.kubernetes.io/provisioned-by"
	AnnDeletionSecretName      = "volume.kubernetes.io/provisioner-deletion-secret-name"
	AnnDeletionSecretNamespace = "volume.kubernetes.io/provisioner-deletion-secret-namespace"
	AnnShareID                 = "csi.sharevol.dev/share-id"
	// AnnOnDelete is that of a volume whose source has no place for it.
	AnnOnDelete = "csi.sharevol.dev/on-delete"
	// AnnDirectoryGone says of an adopted volume since when its directory is gone.
	AnnDirectoryGone = "csi.sharevol.dev/directory-gone"
)

// Names are the provisioners' names that are served.
type Names struct {
	// Driver is the CSI driver of the volumes, and what its classes give as provisioner.
	Driver string
	// DefaultOnDelete is for classes of the driver that name no policy.
	DefaultOnDelete volume.OnDelete
	// Adopted are the provisioners of in-tree NFS volumes whose claims and volumes are
	// served too.
	Adopted []volume.Adoption
}

// Formats returns the formats of all names, the driver's first. class returns a class of
// the cluster, nil for one that is not there.
func (n Names) Formats(class func(name string) *storagev1.StorageClass) Formats {
	formats := Formats{csiFormat{driver: n.Driver, onDelete: n.DefaultOnDelete}}
	for _, adoption := range n.Adopted {
		formats = append(formats, nfsFormat{Adoption: adoption, class: class})
	}
	return formats
}

// Format is how the classes and volumes of one provisioner's name are written.
type Format interface {
	// Provisioner is the name: what classes give as their provisioner.
	Provisioner() string
	// ReadClass reads a class; every fault is in the list.
	ReadClass(parameters map[string]string, mountOptions []string) (volume.Class, field.ErrorList)
	// Write makes vol the source of a new pv.
	Write(pv *v1.PersistentVolume, vol volume.Volume, publish *volume.SecretRef)
	// Reads says whether pv is a volume of this name, by what tells that.
	Reads(pv *v1.PersistentVolume) bool
	// Read returns what pv records, and refuses whatever no provisioner of this name
	// can have written.
	Read(pv *v1.PersistentVolume) (Existing, error)
}

// Existing is what a PersistentVolume records.
type Existing struct {
	volume.Volume
	MountOptions []string
	// Adopted says that another provisioner made the volume: there is no record of it
	// on its share.
	Adopted bool
}

// Formats are those of several names.
type Formats []Format

// Read returns what pv records, of whichever name it is: an in-tree volume tells by its
// annotation, a CSI volume by its driver.
func (all Formats) Read(pv *v1.PersistentVolume) (Existing, error) {
	for _, f := range all {
		if f.Reads(pv) {
			return f.Read(pv)
		}
	}
	return Existing{}, fmt.Errorf("PersistentVolume %s does not belong to a provisioner name served here", pv.Name)
}

// csiFormat is that of CSI volumes: ours and, where the driver's name is not ours,
// those of csi-driver-nfs.
type csiFormat struct {
	driver   string
	onDelete volume.OnDelete // where a class, or a volume of csi-driver-nfs, names none
}

func (f csiFormat) Provisioner() string { return f.driver }

func (f csiFormat) ReadClass(parameters map[string]string, mountOptions []string) (volume.Class, field.ErrorList) {
	return fs.Types.ParseClass(parameters, mountOptions, f.onDelete)
}

func (f csiFormat) Write(pv *v1.PersistentVolume, vol volume.Volume, publish *volume.SecretRef) {
	pv.Spec.CSI = &v1.CSIPersistentVolumeSource{Driver: f.driver, VolumeHandle: vol.Handle(pv.Name), VolumeAttributes: vol.Attributes()}
	if publish != nil {
		pv.Spec.CSI.NodePublishSecretRef = &v1.SecretReference{Name: publish.Name, Namespace: publish.Namespace}
	}
}

func (f csiFormat) Reads(pv *v1.PersistentVolume) bool {
	return pv.Spec.CSI != nil && pv.Spec.CSI.Driver == f.driver
}

func (f csiFormat) Read(pv *v1.PersistentVolume) (Existing, error) {
	csi := pv.Spec.CSI
	if !f.Reads(pv) {
		return Existing{}, fmt.Errorf("PersistentVolume %s is not a volume of the CSI driver %s", pv.Name, f.driver)
	}
	e := Existing{Adopted: f.isAdopted(pv)}
	source := field.NewPath("spec", "csi")
	path := source.Child("volumeAttributes")
	var errs field.ErrorList
	if e.Adopted {
		e.Volume, errs = volume.FromAdopted(csi.VolumeHandle, csi.VolumeAttributes, f.onDelete, source)
	} else if e.Volume, errs = volume.FromAttributes(csi.VolumeAttributes, path, fs.Types.Share); pv.Annotations[AnnShareID] == "" {
		errs = append(errs, field.Required(field.NewPath("metadata", "annotations").Key(AnnShareID), "tells which share the directory was made on"))
	}
	if e.SubDir == "" && len(errs) == 0 {
		errs = append(errs, field.Required(path.Key("subDir"), "the share root itself is never removed"))
	}
	more, optionErrs := volume.MountOptionsFromAttributes(csi.VolumeAttributes, path, fs.Types.Options(e.Share).Check)
	e.MountOptions = append(slices.Clone(pv.Spec.MountOptions), more...)
	return e, Invalid(append(append(errs, optionErrs...), checkMountOptions(pv, e.Share)...))
}

// isAdopted reports whether csi-driver-nfs made pv. Nobody but sharevol makes volumes of
// the driver's own name; there, one without a share's id is not what it was.
func (f csiFormat) isAdopted(pv *v1.PersistentVolume) bool {
	return f.driver != volume.DefaultDriverName && pv.Annotations[AnnShareID] == "" && pv.Annotations[AnnProvisionedBy] == f.driver
}

// nfsFormat is that of in-tree NFS volumes, of an nfs-subdir-external-provisioner that
// was adopted. New volumes are written as that one writes them, so that it could serve
// them again: it can't read any others.
type nfsFormat struct {
	volume.Adoption
	class func(name string) *storagev1.StorageClass // nil for one that is not there
}

func (f nfsFormat) Provisioner() string { return f.Name }

func (f nfsFormat) ReadClass(parameters map[string]string, mountOptions []string) (volume.Class, field.ErrorList) {
	return fs.Types.ParseAdopted(f.Adoption, parameters, mountOptions)
}

func (f nfsFormat) Write(pv *v1.PersistentVolume, vol volume.Volume, _ *volume.SecretRef) {
	pv.Spec.NFS = &v1.NFSVolumeSource{Server: vol.Share.Server, Path: vol.Full()}
	pv.Annotations[AnnOnDelete] = string(vol.OnDelete)
}

func (f nfsFormat) Reads(pv *v1.PersistentVolume) bool {
	return pv.Spec.NFS != nil && pv.Annotations[AnnProvisionedBy] == f.Name
}

func (f nfsFormat) Read(pv *v1.PersistentVolume) (Existing, error) {
	e := Existing{MountOptions: pv.Spec.MountOptions, Adopted: pv.Annotations[AnnShareID] == ""}
	nfs := pv.Spec.NFS
	if nfs == nil {
		return e, fmt.Errorf("PersistentVolume %s is no nfs volume, which %s makes", pv.Name, f.Name)
	}
	var err error
	if e.Directory, err = f.Directory(nfs.Server, nfs.Path); err != nil {
		return e, fmt.Errorf("PersistentVolume %s %w", pv.Name, err)
	}
	if e.OnDelete, err = f.policy(pv); err != nil {
		return e, err
	}
	return e, Invalid(checkMountOptions(pv, e.Share))
}

// policy is what pv says, if sharevol made it, or its class does. Without a class of
// this provisioner by that name, nobody has asked for the data to be deleted.
func (f nfsFormat) policy(pv *v1.PersistentVolume) (volume.OnDelete, error) {
	if value := pv.Annotations[AnnOnDelete]; value != "" && pv.Annotations[AnnShareID] != "" {
		policy, err := volume.ParseOnDelete(value)
		if err != nil {
			return "", fmt.Errorf("metadata.annotations[%s]: %q %w", AnnOnDelete, value, err)
		}
		return policy, nil
	}
	name := pv.Annotations[v1.BetaStorageClassAnnotation]
	if name == "" {
		name = pv.Spec.StorageClassName
	}
	class := f.class(name)
	if class == nil || class.Provisioner != f.Name {
		return volume.Archive, nil
	}
	policy, err := f.Policy(class.Parameters)
	if err != nil {
		return "", fmt.Errorf("StorageClass %s: parameters[archiveOnDelete] %w", name, err)
	}
	return policy, nil
}

func checkMountOptions(pv *v1.PersistentVolume, s volume.Share) field.ErrorList {
	return fs.Types.Options(s).CheckAll(pv.Spec.MountOptions, field.NewPath("spec", "mountOptions"))
}

// Invalid returns one error that names every fault of some object, nil if there is none.
func Invalid(errs field.ErrorList) error {
	if len(errs) == 0 {
		return nil
	}
	return errors.New(volume.Faults(errs))
}
