package fs

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"sharevol.dev/sharevol/internal/volume"
)

// Share reads which share the parameters of a class or the attributes of a PersistentVolume
// name. It is a volume.ReadShare; with any fault there is no share.
func (t Table) Share(values map[string]string, path *field.Path) (volume.Share, field.ErrorList) {
	of, err := t.Lookup(values[volume.AttrType])
	if err != nil {
		return volume.Share{}, field.ErrorList{field.NotSupported(path.Key(volume.AttrType), values[volume.AttrType], t.names())}
	}
	s, errs := of.Share(values, path)
	if len(errs) > 0 {
		return volume.Share{}, errs
	}
	if of.Name != t[0].Name {
		s.Type = of.Name
	}
	return s, nil
}

// ParseClass reads a StorageClass; see volume.ParseClass. The faults of its mount options
// come first.
func (t Table) ParseClass(parameters map[string]string, mountOptions []string, defaultOnDelete volume.OnDelete) (volume.Class, field.ErrorList) {
	class, errs := volume.ParseClass(parameters, defaultOnDelete, t.classShare)
	return t.withOptions(class, mountOptions, errs)
}

// ParseAdopted reads a StorageClass of an adopted provisioner; see volume.Adoption.
func (t Table) ParseAdopted(a volume.Adoption, parameters map[string]string, mountOptions []string) (volume.Class, field.ErrorList) {
	class, errs := a.ParseClass(parameters)
	return t.withOptions(class, mountOptions, errs)
}

func (t Table) withOptions(class volume.Class, mountOptions []string, errs field.ErrorList) (volume.Class, field.ErrorList) {
	class.MountOptions = slices.Clone(mountOptions)
	return class, append(t.Options(class.Share).CheckAll(mountOptions, field.NewPath("mountOptions")), errs...)
}

// classShare is Share for classes, where a parameter that is another type's is a fault.
func (t Table) classShare(values map[string]string, path *field.Path) (volume.Share, field.ErrorList) {
	s, errs := t.Share(values, path)
	of, err := t.Lookup(values[volume.AttrType])
	if err != nil {
		return s, errs // which say so
	}
	for _, name := range []string{volume.AttrServer, volume.AttrShare, volume.AttrSource} {
		if values[name] != "" && !slices.Contains(of.Parameters, name) {
			errs = append(errs, field.Forbidden(path.Key(name), fmt.Sprintf("type %s takes %s", of.Name, strings.Join(of.Parameters, " and "))))
		}
	}
	return s, errs
}
