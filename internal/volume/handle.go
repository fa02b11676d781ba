package volume

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// oldHandle is the form that csi-driver-nfs gave handles before it had a separator
// of its own: server/share/subDir, with slashes in the share only.
var oldHandle = regexp.MustCompile(`^([^/]+)/(.*)/([^/]+)$`)

// The fields of a handle of csi-driver-nfs; the first three are always there.
const (
	handleServer = iota
	handleShare
	handleSubDir
	handleName
	handleOnDelete
	handleFields // how many there are
)

// ParseHandle reads a volume handle in the forms of csi-driver-nfs, which are ours
// too: server#share#subDir, then perhaps #name, then perhaps #onDelete; or, the oldest,
// server/share/subDir. An empty policy means that the handle names none. Its error names every fault:
// whatever could name another place than one directory below the share is one.
func ParseHandle(handle string) (Volume, error) {
	fields := strings.Split(handle, "#")
	if len(fields) == 1 {
		if match := oldHandle.FindStringSubmatch(handle); match != nil {
			fields = match[1:]
		}
	}
	if len(fields) <= handleSubDir || len(fields) > handleFields {
		return Volume{}, errors.New("must be server#share#subDir, optionally followed by #name and #onDelete, or server/share/subDir")
	}
	var v Volume
	var errs [handleFields]error
	v.Share.Server, errs[handleServer] = ParseServer(fields[handleServer])
	v.Share.Path, errs[handleShare] = ParseSharePath("/" + fields[handleShare])
	v.SubDir, errs[handleSubDir] = parseLooseSubDir(fields[handleSubDir])
	if len(fields) > handleName && (fields[handleName] == "." || fields[handleName] == ".." || strings.ContainsAny(fields[handleName], `/\`)) {
		errs[handleName] = errors.New("must be the name of a PersistentVolume")
	}
	if len(fields) > handleOnDelete && fields[handleOnDelete] != "" {
		v.OnDelete, errs[handleOnDelete] = ParseOnDelete(fields[handleOnDelete])
	}
	var faults []error
	for i, name := range []string{"server", "share", "subDir", "name", "onDelete"} {
		if errs[i] != nil {
			faults = append(faults, fmt.Errorf("its %s %q %w", name, fields[i], errs[i]))
		}
	}
	if len(faults) > 0 {
		return Volume{}, errors.Join(faults...)
	}
	return v, nil
}

// FromAdopted reads a PersistentVolume that csi-driver-nfs made: where its data is, and
// what happens to it when the volume is deleted. The policy is missing where the volume
// names none.
//
// Pods are mounted by the attributes, so these decide. But csi-driver-nfs finds what it
// deletes by the handle: both must name the same place, or nothing is known to
// be the volume's. The handle alone counts where there are no attributes, and divides
// the path into share and subDir where the attributes have the two in one, as its first
// releases wrote them. Every fault is in the list, under path, that of the CSI source.
func FromAdopted(handle string, attributes map[string]string, missing OnDelete, path *field.Path) (Volume, field.ErrorList) {
	byHandle, err := ParseHandle(handle)
	if err != nil {
		return Volume{}, field.ErrorList{field.Invalid(path.Child("volumeHandle"), visible(handle), oneLine(err))}
	}
	under := path.Child("volumeAttributes")
	values, errs := lowerKeys(attributes, under)
	v := byHandle
	if values[AttrServer] != "" || values[AttrShare] != "" {
		var more field.ErrorList
		v.Directory, more = DirectoryFromAttributes(attributes, under, ServerAndShare)
		errs = more // with those of lowerKeys
	}
	if len(errs) > 0 {
		return v, errs
	}
	if !v.Same(byHandle.Directory) {
		return v, field.ErrorList{field.Invalid(path.Child("volumeHandle"), handle,
			fmt.Sprintf("names the directory %s, but the volumeAttributes name %s", byHandle.DisplayPath(), v.DisplayPath()))}
	}
	if v.SubDir == "" {
		v.Directory = byHandle.Directory
	}
	v.OnDelete = missing
	if byHandle.OnDelete != "" {
		v.OnDelete = byHandle.OnDelete
	}
	if value := values[strings.ToLower(attrOnDelete)]; value != "" {
		v.OnDelete = parse(ParseOnDelete, value, under.Key(attrOnDelete), &errs)
		if byHandle.OnDelete != "" && byHandle.OnDelete != v.OnDelete {
			errs = append(errs, field.Invalid(path.Child("volumeHandle"), handle, "names another policy than the volumeAttributes"))
		}
	}
	return v, errs
}

// Same reports whether d and other are one place, whatever is share and what subDir.
func (d Directory) Same(other Directory) bool {
	return CanonicalServer(d.Share.Server) == CanonicalServer(other.Share.Server) && d.Full() == other.Full()
}

// parseLooseSubDir is ParseSubDir for what csi-driver-nfs writes: slashes at the ends
// and repeated ones mean nothing.
func parseLooseSubDir(value string) (SubDir, error) {
	return ParseSubDir(tidy(value))
}

// tidy returns a relative path without the slashes that mean nothing. What is empty
// then, but was not before, stays as it was: no path is to become another one.
func tidy(value string) string {
	components := strings.FieldsFunc(value, func(r rune) bool { return r == '/' })
	if len(components) == 0 {
		return value
	}
	return strings.Join(components, "/")
}
