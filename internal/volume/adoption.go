package volume

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// defaultAdopted is where nfs-subdir-external-provisioner puts a volume of a class
// without a pathPattern.
const defaultAdopted = "${.PVC.namespace}-${.PVC.name}-${pv.metadata.name}"

// Adoption is an nfs-subdir-external-provisioner whose classes and volumes sharevol
// takes over. That one serves one share, which its classes do not name.
type Adoption struct {
	// Name is what classes give as their provisioner, and volumes as theirs.
	Name  string
	Share Share
}

// ParseAdoption reads NAME=server:/share.
func ParseAdoption(value string) (Adoption, error) {
	const form = "must be NAME=SERVER:/SHARE, for example cluster.local/nfs-subdir-external-provisioner=nfs.example.com:/srv/volumes"
	name, source, found := strings.Cut(value, "=")
	if !found {
		return Adoption{}, errors.New(form)
	}
	var errs [2]error
	if domain, last, two := strings.Cut(name, "/"); !dnsSubdomain.MatchString(strings.ToLower(domain)) || two && !dnsSubdomain.MatchString(strings.ToLower(last)) {
		errs[0] = fmt.Errorf("%q is not the name of a provisioner", name)
	}
	a := Adoption{Name: name}
	a.Share, errs[1] = ParseShare(source)
	if err := errors.Join(errs[:]...); err != nil {
		return Adoption{}, fmt.Errorf("%s: %s", form, oneLine(err))
	}
	return a, nil
}

// Lock is the name of the object by which the provisioner elects its leader.
func (a Adoption) Lock() string { return strings.ReplaceAll(a.Name, "/", "-") }

// ParseClass reads a StorageClass of the provisioner as that one does: letter case
// of names matters, and parameters that it does not know mean nothing. A pathPattern
// must render a path that is safe and not empty; the values of labels and annotations
// may add levels to it, as they always could. Every fault is in the list. Its mount options
// are left to the caller.
func (a Adoption) ParseClass(parameters map[string]string) (Class, field.ErrorList) {
	r := &reader{path: field.NewPath("parameters"), values: map[string]string{}}
	for name, value := range parameters {
		r.values[strings.ToLower(name)] = value // for what faults show
	}
	c := Class{Share: a.Share, Mode: defaultMode, UID: unsetID, GID: unsetID}
	pattern := tidy(parameters[paramPathPattern])
	if pattern == "" {
		pattern = defaultAdopted
	}
	c.SubDir = r.pathTemplate(paramPathPattern, pattern, csiNames|nfsSubdirNames)
	c.SubDir.slashes = true
	var err error
	if c.OnDelete, err = a.Policy(parameters); err != nil {
		r.invalid(paramArchive, err.Error())
	}
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		if name != paramPathPattern && name != attrOnDelete && name != paramArchive {
			c.Ignored = append(c.Ignored, name)
		}
	}
	return c, r.errs
}

// Policy returns what becomes of the volumes of a class of the provisioner with these
// parameters, as that one reads them when it deletes one: onDelete if it is delete or
// retain, else archiveOnDelete, else archive.
func (a Adoption) Policy(parameters map[string]string) (OnDelete, error) {
	switch policy := OnDelete(parameters[attrOnDelete]); policy {
	case Delete, Retain:
		return policy, nil
	}
	if value, found := parameters[paramArchive]; found {
		archive, err := strconv.ParseBool(value)
		if err != nil {
			return Retain, errors.New("must be true or false")
		}
		if !archive {
			return Delete, nil
		}
	}
	return Archive, nil
}

// Directory returns where the data is of a volume with the in-tree source server and
// path. It is an error if that is not a directory below the adopted share.
func (a Adoption) Directory(server, exported string) (Directory, error) {
	if CanonicalServer(server) != CanonicalServer(a.Share.Server) {
		return Directory{}, fmt.Errorf("is on the server %q, and %s was adopted with %s", server, a.Name, a.Share)
	}
	full, err := ParseSharePath(exported)
	if err != nil {
		return Directory{}, fmt.Errorf("has the path %q, which %w", exported, err)
	}
	relative, below := strings.CutPrefix(full, strings.TrimSuffix(a.Share.Path, "/")+"/")
	if !below || relative == "" {
		return Directory{}, fmt.Errorf("has the path %q, which is not below %s, with which %s was adopted", exported, a.Share, a.Name)
	}
	subDir, err := ParseSubDir(relative)
	if err != nil {
		return Directory{}, fmt.Errorf("has the path %q, which %w", exported, err)
	}
	return Directory{Share: a.Share, SubDir: subDir}, nil
}
