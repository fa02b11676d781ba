// Package fs is the table of the types of file systems whose shares sharevol serves: how
// classes and volumes name a share of each type, how it is mounted, and what its mounts
// look like. All that sets one type apart stands in its value here, and nowhere else; a
// new type is one more value.
package fs

import (
	"fmt"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/mount"
	"sharevol.dev/sharevol/internal/volume"
)

// Types are the types that sharevol serves.
var Types = Table{nfs}

// Type is a type of file system.
type Type struct {
	// Name is what classes and volumes call it, and what mount -t takes.
	Name string
	// Parameters are those of a class that say which share: of server, share and source.
	Parameters []string
	// Share reads the share from these parameters, or from a PersistentVolume's
	// attributes of the same names. It leaves Share.Type empty.
	Share volume.ReadShare
	// FSTypes are its names in mountinfo.
	FSTypes []string
	// Magic is its number in the f_type of statfs(2).
	Magic int64
	// VersionOption is the option in mountinfo whose value is the version of its protocol;
	// empty for none.
	VersionOption string
	// Source is what mount(8) takes for a directory of a share.
	Source func(s volume.Share, dir volume.SubDir) string
	// Shows reports whether a mount of this type that was made with source can have the
	// source shown in mountinfo.
	Shows func(shown, source string) bool
	// Helper is the program that mount(8) runs for the type, if that program can be run
	// in its place; see mount.Spec.
	Helper string
	// Stale is the error of a mount whose server no longer knows what is mounted: only a new
	// mount helps.
	Stale syscall.Errno
	// Options are its rules for mount options.
	Options OptionRules
}

// Mount returns how to mount a directory of a share, with the options of a class or volume.
func (t Type) Mount(s volume.Share, dir volume.SubDir, options []string) mount.Spec {
	source := t.Source(s, dir)
	return mount.Spec{
		Type: t.Name, Source: source, Options: slices.Concat(options, t.Options.Always), Helper: t.Helper,
		Shows: func(l mount.Layer) bool { return t.mounts(l) && t.Shows(l.Source, source) },
	}
}

// mounts reports whether l is a mount of this type.
func (t Type) mounts(l mount.Layer) bool { return slices.Contains(t.FSTypes, l.FSType) }

// Version returns the version of the protocol, by the file system's options in mountinfo;
// empty if they show none.
func (t Type) Version(options string) string {
	for option := range strings.SplitSeq(options, ",") {
		if name, value, _ := strings.Cut(option, "="); name != "" && name == t.VersionOption {
			return value
		}
	}
	return ""
}

// CheckRoot returns an error unless a file system of this type is mounted on path. It asks
// its server, and blocks for as long as that does not answer.
func (t Type) CheckRoot(path string) error {
	var stat unix.Statfs_t
	if err := unix.Statfs(path, &stat); err != nil {
		return fmt.Errorf("statfs %s: %w", path, err)
	}
	if int64(stat.Type) != t.Magic {
		return fmt.Errorf("no share of type %s is mounted on %s any more", t.Name, path)
	}
	return nil
}

// Table is a list of types, of which the first is the default.
type Table []Type

// Lookup returns the type of a name, the default for "". The error says which there are.
func (t Table) Lookup(name string) (Type, error) {
	if name == "" {
		return t[0], nil
	}
	for _, one := range t {
		if one.Name == name {
			return one, nil
		}
	}
	return Type{}, fmt.Errorf("%q is not a type of file system that sharevol serves: %s", name, strings.Join(t.names(), ", "))
}

func (t Table) names() []string {
	var names []string
	for _, one := range t {
		names = append(names, one.Name)
	}
	return names
}

// Of returns the type that a mount is of, and whether it is one of the table's.
func (t Table) Of(l mount.Layer) (Type, bool) {
	for _, one := range t {
		if one.mounts(l) {
			return one, true
		}
	}
	return Type{}, false
}

// Helpers are the mount helpers of all types.
func (t Table) Helpers() []string {
	var helpers []string
	for _, one := range t {
		if one.Helper != "" {
			helpers = append(helpers, one.Helper)
		}
	}
	return helpers
}

// Options returns the rules for the mount options of a share.
func (t Table) Options(s volume.Share) OptionRules {
	of, _ := t.Lookup(s.Type) // one that is unknown can't be mounted
	return of.Options
}
