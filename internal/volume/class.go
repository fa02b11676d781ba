package volume

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The names of a class's parameters that no PersistentVolume records. Letter case
// does not matter.
const (
	paramPathPattern  = "pathPattern"     // nfs-subdir-external-provisioner's name of subDir
	paramArchive      = "archiveOnDelete" // nfs-subdir-external-provisioner's, for onDelete
	paramMode         = "mountPermissions"
	paramUID          = "uid"
	paramGID          = "gid"
	paramAllowSlashes = "subDirAllowSlashes"
	sidecarPrefix     = "csi.storage.k8s.io/"
	defaultSubDir     = "${pv.metadata.name}"
	defaultMode       = 0o777
	maxMode           = 0o3777    // permission bits, setgid and sticky
	maxID             = 1<<32 - 2 // (uid_t)-1 means "leave it" to chown(2)
	unsetID           = int64(-1)
)

// known are the parameters that sharevol takes, as it shows them.
var known = []string{
	AttrType, AttrServer, AttrShare, attrSubDir, paramPathPattern, attrOnDelete, paramArchive, paramMode, paramUID, paramGID, paramAllowSlashes,
	paramProvisioner + suffixSecretName, paramProvisioner + suffixSecretSpace,
	paramNodePublish + suffixSecretName, paramNodePublish + suffixSecretSpace,
}

// ignored are the keys that CSI sidecars know and sharevol does not, without their
// prefix. Classes that worked elsewhere may carry them.
var ignored = []string{
	"fstype",
	"pv/name", "pvc/name", "pvc/namespace",
	"secret-name", "secret-namespace",
	"node-stage-secret-name", "node-stage-secret-namespace",
	"controller-publish-secret-name", "controller-publish-secret-namespace",
	"controller-expand-secret-name", "controller-expand-secret-namespace",
	"node-expand-secret-name", "node-expand-secret-namespace",
	"snapshotter-secret-name", "snapshotter-secret-namespace",
	"snapshotter-list-secret-name", "snapshotter-list-secret-namespace",
	"group-snapshotter-secret-name", "group-snapshotter-secret-namespace",
	"volumesnapshot/name", "volumesnapshot/namespace", "volumesnapshotcontent/name",
}

// Class is what a StorageClass asks for, as ParseClass returns it.
type Class struct {
	Share    Share
	SubDir   Template
	OnDelete OnDelete
	// Mode is the mode of a new volume directory; zero leaves what mkdir makes.
	Mode uint32
	// UID and GID own a new volume directory; -1 leaves what mkdir makes.
	UID, GID     int64
	MountOptions []string
	// ProvisionerSecret and NodePublishSecret are nil where the class names none.
	ProvisionerSecret, NodePublishSecret *SecretTemplate
	// Ignored are the parameters that CSI sidecars know, as the class writes them. They
	// mean nothing here.
	Ignored []string
}

// ParseClass reads a StorageClass's parameters, and its share with read. A class that names
// no policy gets defaultOnDelete; an empty value is as good as none. Every fault is in
// the list, one line each, sorted by where it is; a parameter that sharevol does not
// know is one, because a misspelt onDelete must not delete. With faults, whatever of
// the class could be read is in the Class. Its mount options are left to the caller.
func ParseClass(parameters map[string]string, defaultOnDelete OnDelete, read ReadShare) (Class, field.ErrorList) {
	r := &reader{path: field.NewPath("parameters")}
	r.values, r.errs = lowerKeys(parameters, r.path)
	share, errs := read(r.values, r.path)
	r.errs = append(r.errs, errs...)
	c := Class{Share: share, SubDir: r.subDir()}
	c.SubDir.slashes = get(r, paramAllowSlashes, false, parseBool)
	c.OnDelete = r.onDelete(defaultOnDelete)
	c.Mode = get(r, paramMode, defaultMode, parseMode)
	c.UID = get(r, paramUID, unsetID, parseID)
	c.GID = get(r, paramGID, unsetID, parseID)
	c.ProvisionerSecret = r.secret(paramProvisioner, false)
	c.NodePublishSecret = r.secret(paramNodePublish, true)
	c.Ignored = r.others(parameters)
	sortFaults(r.errs)
	return c, r.errs
}

// reader collects the faults of one class.
type reader struct {
	path   *field.Path
	values map[string]string // by the name in lower case
	errs   field.ErrorList
}

func (r *reader) value(name string) string { return r.values[strings.ToLower(name)] }

func (r *reader) invalid(name, why string) {
	r.errs = append(r.errs, field.Invalid(r.path.Key(name), r.value(name), why))
}

// get reads the parameter name with parse; a missing or empty one is missing.
func get[T any](r *reader, name string, missing T, parse func(string) (T, error)) T {
	value := r.value(name)
	if value == "" {
		return missing
	}
	result, err := parse(value)
	if err != nil {
		r.invalid(name, err.Error())
	}
	return result
}

// subDir reads subDir and its alias.
func (r *reader) subDir() Template {
	own, alias := r.value(attrSubDir), r.value(paramPathPattern)
	switch {
	case own == "" && alias == "":
		return r.pathTemplate(attrSubDir, defaultSubDir, csiNames)
	case alias == "":
		return r.pathTemplate(attrSubDir, own, csiNames)
	case own == "":
		return r.pathTemplate(paramPathPattern, alias, csiNames|nfsSubdirNames)
	}
	t, other := r.pathTemplate(attrSubDir, own, csiNames), r.pathTemplate(paramPathPattern, alias, csiNames|nfsSubdirNames)
	if own != alias && !t.same(other) {
		r.invalid(paramPathPattern, "means the same as subDir, which has another value: give one of them")
	}
	return t
}

// pathTemplate reads a template of a path, and what its text breaks of the rules for
// paths, whatever the claim.
func (r *reader) pathTemplate(name, value string, d dialect) Template {
	t, errs := parseTemplate(name, value, d)
	if _, err := ParseSubDir(t.sample()); err != nil {
		errs = append(errs, err)
	}
	for _, err := range errs {
		r.invalid(name, err.Error())
	}
	return t
}

// onDelete reads onDelete and its alias.
func (r *reader) onDelete(missing OnDelete) OnDelete {
	policy := get(r, attrOnDelete, "", ParseOnDelete)
	alias := get(r, paramArchive, "", func(value string) (OnDelete, error) {
		archive, err := parseBool(value)
		if archive {
			return Archive, err
		}
		return Delete, err
	})
	switch {
	case policy != "" && alias != "" && policy != alias:
		r.invalid(paramArchive, "means onDelete: "+string(alias)+", and onDelete has another value: give one of them")
		return Retain
	case policy != "":
		return policy
	case alias != "":
		return alias
	}
	return missing
}

// others returns the parameters of other sidecars; an unknown one is a fault.
func (r *reader) others(parameters map[string]string) []string {
	var others []string
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		// As lowerKeys does it. EqualFold would take a long s for an s, and the value would not be read.
		low := strings.ToLower(name)
		// A source is refused with its reason where the type takes none.
		if low == AttrSource || slices.ContainsFunc(known, func(k string) bool { return strings.ToLower(k) == low }) {
			continue
		}
		if key, ok := strings.CutPrefix(low, sidecarPrefix); ok && slices.Contains(ignored, key) {
			others = append(others, name)
			continue
		}
		r.errs = append(r.errs, field.Invalid(r.path.Key(visible(name)), parameters[name], "unknown parameter, must be one of "+strings.Join(known, ", ")))
	}
	return others
}

func parseBool(value string) (bool, error) {
	result, err := strconv.ParseBool(value)
	if err != nil {
		return false, errors.New("must be true or false")
	}
	return result, nil
}

func parseMode(value string) (uint32, error) {
	mode, err := strconv.ParseUint(value, 8, 32)
	if err != nil || mode > maxMode {
		return 0, errors.New("must be an octal mode from 0 to 3777: permission bits, setgid (2000) and sticky (1000)")
	}
	return uint32(mode), nil
}

func parseID(value string) (int64, error) {
	id, err := strconv.ParseUint(value, 10, 32)
	if err != nil || id > maxID {
		return unsetID, errors.New("must be a number from 0 to 4294967294")
	}
	return int64(id), nil
}
