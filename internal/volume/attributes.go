package volume

import (
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The names of the attributes that say which share, alike in a class's parameters and in a
// PersistentVolume's volumeAttributes. Letter case does not matter when reading.
const (
	AttrType   = "type"
	AttrServer = "server"
	AttrShare  = "share"
	AttrSource = "source" // for types that have no server and share
)

// The names of the others.
const (
	attrSubDir   = "subDir"
	attrOnDelete = "onDelete"

	attrMountOptions = "mountoptions" // in lower case; only csi-driver-nfs's hand-made volumes have it
)

// Attributes returns the volumeAttributes that record v in a PersistentVolume.
func (v Volume) Attributes() map[string]string {
	attributes := map[string]string{attrSubDir: string(v.SubDir), attrOnDelete: string(v.OnDelete)}
	if v.Share.Type == "" {
		attributes[AttrServer], attributes[AttrShare] = v.Share.Server, v.Share.Path
	} else {
		attributes[AttrType], attributes[AttrSource] = v.Share.Type, v.Share.source()
	}
	return attributes
}

// DirectoryFromAttributes reads from the volumeAttributes of a PersistentVolume,
// ours, csi-driver-nfs's or a hand-made one, where its data is: read finds the share; a
// missing subDir is the share root; other attributes are ignored. As in
// csi-driver-nfs a subDir may have slashes at its ends, and name the claim and the volume by
// variables where the attributes tell which they are. Every fault is in the list, under path.
func DirectoryFromAttributes(attributes map[string]string, path *field.Path, read ReadShare) (Directory, field.ErrorList) {
	values, errs := lowerKeys(attributes, path)
	share, shareErrs := read(values, path)
	errs = append(errs, shareErrs...)
	d := Directory{Share: share}
	if value := subDirOf(values); value != "" {
		d.SubDir = parse(parseLooseSubDir, value, path.Key(attrSubDir), &errs)
	}
	return d, errs
}

// MountOptionsFromAttributes returns the options that the volumeAttributes of a
// hand-made PersistentVolume may have, separated by commas, as csi-driver-nfs takes
// them, if check finds no fault in them. Every fault is in the list, under path.
func MountOptionsFromAttributes(attributes map[string]string, path *field.Path, check func(string) error) ([]string, field.ErrorList) {
	values, _ := lowerKeys(attributes, path) // whose faults DirectoryFromAttributes returns
	value := values[attrMountOptions]
	if value == "" {
		return nil, nil
	}
	if err := check(value); err != nil {
		return nil, field.ErrorList{field.Invalid(path.Key("mountOptions"), value, oneLine(err))}
	}
	return strings.Split(value, ","), nil
}

// FromAttributes reads all that the volumeAttributes of a PersistentVolume record.
// A missing onDelete is retain: nothing is deleted that no class asked to delete.
func FromAttributes(attributes map[string]string, path *field.Path, read ReadShare) (Volume, field.ErrorList) {
	directory, errs := DirectoryFromAttributes(attributes, path, read)
	v := Volume{Directory: directory, OnDelete: Retain}
	values, _ := lowerKeys(attributes, path) // whose faults are in errs already
	if value := values[strings.ToLower(attrOnDelete)]; value != "" {
		v.OnDelete = parse(ParseOnDelete, value, path.Key(attrOnDelete), &errs)
	}
	return v, errs
}

// Faults returns every fault of the list in one line, "" for none.
func Faults(errs field.ErrorList) string {
	messages := make([]string, 0, len(errs))
	for _, err := range errs {
		messages = append(messages, oneLine(err))
	}
	return strings.Join(messages, "; ")
}

// oneLine returns the message of an error that may join several.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

func parse[T any](f func(string) (T, error), value string, path *field.Path, errs *field.ErrorList) T {
	result, err := f(value)
	if err != nil {
		*errs = append(*errs, field.Invalid(path, value, err.Error()))
	}
	return result
}

// lowerKeys returns m with its keys in lower case. Two keys that differ only in
// case are a fault, whatever their values: it is undefined which one counts.
func lowerKeys(m map[string]string, path *field.Path) (map[string]string, field.ErrorList) {
	var errs field.ErrorList
	lower := make(map[string]string, len(m))
	for _, key := range slices.Sorted(maps.Keys(m)) { // so that a fault reads the same each time
		low := strings.ToLower(key)
		if _, again := lower[low]; again {
			errs = append(errs, field.Invalid(path.Key(visible(low)), m[key], "given more than once, in different letter case"))
		}
		lower[low] = m[key]
	}
	return lower, errs
}
