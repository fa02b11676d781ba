// Package volume is the contract between sharevol's two programs: what a
// StorageClass may ask for, what a PersistentVolume records, and how both are
// read. It is pure: it touches no network, no file and no clock.
package volume

import (
	"fmt"
	"net/netip"
	"path"
	"strings"
)

// DefaultDriverName is the name under which both programs serve volumes unless
// --driver-name says otherwise: the provisioner of StorageClasses, the CSI
// driver of PersistentVolumes.
const DefaultDriverName = "csi.sharevol.dev"

// Share is one NFS export. Its fields are as ParseServer and ParseSharePath
// return them. It is comparable and can be a map key; a server under two names
// is two shares.
type Share struct {
	// Server is a host name, an IPv4 address, or an IPv6 address without brackets.
	Server string
	// Path is the exported path on the server: absolute and clean, "/" for the root.
	Path string
}

// String returns the share as mount(8) takes it: "server:/path", an IPv6
// address in brackets.
func (s Share) String() string {
	if addr, err := netip.ParseAddr(s.Server); err == nil && addr.Is6() {
		return "[" + s.Server + "]:" + s.Path
	}
	return s.Server + ":" + s.Path
}

// SubDir is the path of a volume directory relative to the share root, as
// ParseSubDir returns it. The empty SubDir is the share root itself, which only
// a hand-made PersistentVolume may name.
type SubDir string

// Source returns what mount(8) mounts for the volume directory dir of s.
func (s Share) Source(dir SubDir) string {
	s.Path = path.Join(s.Path, string(dir))
	return s.String()
}

// OnDelete says what becomes of a volume directory when its PersistentVolume is
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

// Source returns what mount(8) mounts for d.
func (d Directory) Source() string { return d.Share.Source(d.SubDir) }

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
