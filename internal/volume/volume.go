// Package volume is the contract between sharevol's two programs: what a
// StorageClass may ask for, what a PersistentVolume records, and how both are
// read. It is pure: it touches no network, no file and no clock.
package volume

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// DefaultDriverName is the name under which both programs serve volumes unless
// --driver-name says otherwise: the provisioner of StorageClasses, the CSI
// driver of PersistentVolumes.
const DefaultDriverName = "csi.sharevol.dev"

// Share is one mountable root of a file system. It is comparable and can be a map key; a
// server under two names is two shares (see Canonical).
type Share struct {
	// Type is the type of file system, by its name in package fs; empty for NFS, which
	// has no other name here.
	Type string
	// Server is a host name, an IPv4 address, or an IPv6 address without brackets, as
	// ParseServer returns it. It is empty for a type without servers.
	Server string
	// Path is the share on its server; for NFS the exported path, as ParseSharePath returns it.
	Path string
}

// String returns the share for logs, metrics and messages: SERVER:/PATH, an IPv6 address in
// brackets; with the type before it, unless that is NFS.
func (s Share) String() string {
	if s.Type != "" {
		return s.Type + " " + s.source()
	}
	return s.source()
}

// source returns where the share is, without its type.
func (s Share) source() string {
	if s.Server == "" {
		return s.Path
	}
	if addr, err := netip.ParseAddr(s.Server); err == nil && addr.Is6() {
		return "[" + s.Server + "]:" + s.Path
	}
	return s.Server + ":" + s.Path
}

// Canonical returns s with its server as CanonicalServer writes it: two shares that differ
// in the spelling of their server alone become equal.
func (s Share) Canonical() Share {
	s.Server = CanonicalServer(s.Server)
	return s
}

// ReadShare reads which share the parameters of a class, or the attributes of a
// PersistentVolume, name, whose own names are in lower case. Every fault is in the list,
// under path. Package fs has one for all types.
type ReadShare func(values map[string]string, path *field.Path) (Share, field.ErrorList)

// ServerAndShare is the ReadShare of NFS.
func ServerAndShare(values map[string]string, path *field.Path) (Share, field.ErrorList) {
	var s Share
	var errs field.ErrorList
	if value := values[AttrServer]; value == "" {
		errs = append(errs, field.Required(path.Key(AttrServer), "the NFS server's name or address"))
	} else {
		s.Server = parse(ParseServer, value, path.Key(AttrServer), &errs)
	}
	if value := values[AttrShare]; value == "" {
		errs = append(errs, field.Required(path.Key(AttrShare), "the path that the server exports"))
	} else {
		s.Path = parse(ParseSharePath, value, path.Key(AttrShare), &errs)
	}
	return s, errs
}

// ParseShare reads an NFS share from the form SERVER:/PATH. Its error names every fault.
func ParseShare(value string) (Share, error) {
	server, exported, found := strings.Cut(value, ":/")
	if !found {
		return Share{}, errors.New("must be SERVER:/PATH")
	}
	var s Share
	var errs [2]error
	s.Server, errs[0] = ParseServer(server)
	s.Path, errs[1] = ParseSharePath("/" + exported)
	return s, errors.Join(errs[:]...)
}

// SubDir is the path of a volume directory relative to the share root, as
// ParseSubDir returns it. The empty SubDir is the share root itself, which only
// a hand-made PersistentVolume may name.
type SubDir string

// OnDelete is what happens to a volume directory when its PersistentVolume is
// deleted.
type OnDelete string

// The policies that a class can name.
const (
	Delete  OnDelete = "delete"  // the directory and all that is in it are removed
	Retain  OnDelete = "retain"  // the directory stays as it is
	Archive OnDelete = "archive" // the directory gets another name on the share
)

var onDeletePolicies = []string{string(Delete), string(Retain), string(Archive)}

// ParseOnDelete reads a policy; letter case does not matter.
func ParseOnDelete(value string) (OnDelete, error) {
	switch policy := OnDelete(strings.ToLower(value)); policy {
	case Delete, Retain, Archive:
		return policy, nil
	}
	return "", fmt.Errorf("must be one of %s", strings.Join(onDeletePolicies, ", "))
}

// Directory is where a volume's data is.
type Directory struct {
	Share  Share
	SubDir SubDir
}

// DisplayPath returns where d is, for messages: SERVER:/PATH.
func (d Directory) DisplayPath() string {
	d.Share.Path = path.Join(d.Share.Path, string(d.SubDir))
	return d.Share.String()
}

// Volume is what a PersistentVolume records.
type Volume struct {
	Directory
	OnDelete OnDelete
}

// Handle returns the volume handle of v for the PersistentVolume pvName, in
// csi-driver-nfs's form server#share#subDir#pvName#onDelete: slashes trimmed at
// the ends of share and subDir, the last field empty for delete. It is unique
// because pvName is, and never parsed where the attributes are there.
func (v Volume) Handle(pvName string) string {
	onDelete := string(v.OnDelete)
	if v.OnDelete == Delete {
		onDelete = ""
	}
	return strings.Join([]string{v.Share.Server, strings.Trim(v.Share.Path, "/"), strings.Trim(string(v.SubDir), "/"), pvName, onDelete}, "#")
}
