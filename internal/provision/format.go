package provision

import (
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"sharevol.dev/sharevol/internal/fs"
	"sharevol.dev/sharevol/internal/volume"
)

// format is how the classes and volumes of one provisioner's name are written.
type format interface {
	// name is what classes give as their provisioner.
	name() string
	// parseClass reads a class; every fault is in the list.
	parseClass(parameters map[string]string, mountOptions []string) (volume.Class, field.ErrorList)
	// write makes vol the source of a new pv.
	write(pv *v1.PersistentVolume, vol volume.Volume, publish *volume.SecretRef)
	// reads says whether pv is a volume of this name, by what tells that.
	reads(pv *v1.PersistentVolume) bool
	// read returns what pv records, and refuses whatever no provisioner of this name
	// can have written.
	read(pv *v1.PersistentVolume) (existing, error)
}

// existing is what a PersistentVolume records.
type existing struct {
	volume.Volume
	mountOptions []string
	// foreign says that another provisioner made the volume: there is no record of it
	// on its share.
	foreign bool
}

// read returns what pv records, of whichever name of ours it is: an in-tree volume tells
// by its annotation, a CSI volume by its driver.
func (p *Provisioner) read(pv *v1.PersistentVolume) (existing, error) {
	for _, f := range p.formats {
		if f.reads(pv) {
			return f.read(pv)
		}
	}
	return existing{}, fmt.Errorf("PersistentVolume %s is not a volume of any name that is served", pv.Name)
}

// csiFormat is that of CSI volumes: ours and, where the driver's name is not ours,
// those of csi-driver-nfs.
type csiFormat struct {
	driver   string
	onDelete volume.OnDelete // where a class, or a volume of csi-driver-nfs, names none
}

func (f csiFormat) name() string { return f.driver }

func (f csiFormat) parseClass(parameters map[string]string, mountOptions []string) (volume.Class, field.ErrorList) {
	return fs.Types.ParseClass(parameters, mountOptions, f.onDelete)
}

func (f csiFormat) write(pv *v1.PersistentVolume, vol volume.Volume, publish *volume.SecretRef) {
	pv.Spec.CSI = &v1.CSIPersistentVolumeSource{Driver: f.driver, VolumeHandle: vol.Handle(pv.Name), VolumeAttributes: vol.Attributes()}
	if publish != nil {
		pv.Spec.CSI.NodePublishSecretRef = &v1.SecretReference{Name: publish.Name, Namespace: publish.Namespace}
	}
}

func (f csiFormat) reads(pv *v1.PersistentVolume) bool {
	return pv.Spec.CSI != nil && pv.Spec.CSI.Driver == f.driver
}

func (f csiFormat) read(pv *v1.PersistentVolume) (existing, error) {
	csi := pv.Spec.CSI
	if !f.reads(pv) {
		return existing{}, fmt.Errorf("PersistentVolume %s is not a volume of the CSI driver %s", pv.Name, f.driver)
	}
	e := existing{foreign: f.isForeign(pv)}
	source := field.NewPath("spec", "csi")
	path := source.Child("volumeAttributes")
	var errs field.ErrorList
	if e.foreign {
		e.Volume, errs = volume.FromAdopted(csi.VolumeHandle, csi.VolumeAttributes, f.onDelete, source)
	} else if e.Volume, errs = volume.FromAttributes(csi.VolumeAttributes, path, fs.Types.Share); pv.Annotations[annShareID] == "" {
		errs = append(errs, field.Required(field.NewPath("metadata", "annotations").Key(annShareID), "tells which share the directory was made on"))
	}
	if e.SubDir == "" && len(errs) == 0 {
		errs = append(errs, field.Required(path.Key("subDir"), "the share root itself is never removed"))
	}
	more, optionErrs := volume.MountOptionsFromAttributes(csi.VolumeAttributes, path, fs.Types.Options(e.Share).Check)
	e.mountOptions = append(slices.Clone(pv.Spec.MountOptions), more...)
	return e, refusal(append(append(errs, optionErrs...), checkMountOptions(pv, e.Share)...))
}

// isForeign reports whether csi-driver-nfs made pv. Nobody but sharevol makes volumes of
// the driver's own name; there, one without a share's id is not what it was.
func (f csiFormat) isForeign(pv *v1.PersistentVolume) bool {
	return f.driver != volume.DefaultDriverName && pv.Annotations[annShareID] == "" && pv.Annotations[annProvisionedBy] == f.driver
}

// nfsFormat is that of in-tree NFS volumes, of an nfs-subdir-external-provisioner that
// was adopted. New volumes are written as that one writes them, so that it could serve
// them again: it can't read any others.
type nfsFormat struct {
	volume.Adoption
	class func(name string) *storagev1.StorageClass // nil for one that is not there
}

func (f nfsFormat) name() string { return f.Name }

func (f nfsFormat) parseClass(parameters map[string]string, mountOptions []string) (volume.Class, field.ErrorList) {
	return fs.Types.ParseAdopted(f.Adoption, parameters, mountOptions)
}

func (f nfsFormat) write(pv *v1.PersistentVolume, vol volume.Volume, _ *volume.SecretRef) {
	pv.Spec.NFS = &v1.NFSVolumeSource{Server: vol.Share.Server, Path: vol.Full()}
	pv.Annotations[annOnDelete] = string(vol.OnDelete)
}

func (f nfsFormat) reads(pv *v1.PersistentVolume) bool {
	return pv.Spec.NFS != nil && pv.Annotations[annProvisionedBy] == f.Name
}

func (f nfsFormat) read(pv *v1.PersistentVolume) (existing, error) {
	e := existing{mountOptions: pv.Spec.MountOptions, foreign: pv.Annotations[annShareID] == ""}
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
	return e, refusal(checkMountOptions(pv, e.Share))
}

// policy is what pv says, if sharevol made it, or its class does. Without a class of
// this provisioner by that name, nobody has asked for the data to be deleted.
func (f nfsFormat) policy(pv *v1.PersistentVolume) (volume.OnDelete, error) {
	if value := pv.Annotations[annOnDelete]; value != "" && pv.Annotations[annShareID] != "" {
		policy, err := volume.ParseOnDelete(value)
		if err != nil {
			return "", fmt.Errorf("metadata.annotations[%s]: %q %w", annOnDelete, value, err)
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
