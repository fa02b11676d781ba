// Package dirs is the only code that creates, renames and removes directories on
// a share. All of it happens beneath one opened share root. Every path is walked
// from there by descriptor, one component at a time, and no link is followed, so
// that nothing in a claim, a PersistentVolume or on the share leads elsewhere.
//
// What it changes: a volume directory, the parents that it made for one, the new
// name of an archive, and the folder .sharevol at the share root, where it keeps
//
//	id                         tells this share from any other in its place
//	owners/<sha256 of subDir>  whose the directory subDir is; made before it
//	owners/<...>.<sha256>      that sharevol made that directory for that owner, or
//	                           has taken it over to remove or archive it
//	owners/<...>.left          that it has left its place, and is on its way out
//	trash/<volume>             a volume directory on its way out
//
// The id, the records and the marks are symbolic links, of which only the text is
// read: one is made with its content in one step that succeeds once, and a server
// that repeats the step does no harm.
//
// Every call may be repeated, and may meet another of its kind, in this process or
// on another machine, between any two of its steps. It may end at any step, for
// ever; the call that repeats it goes on from there. The order of the steps makes
// it so: a record comes before what it speaks of, and goes last. A step that timed out
// may take effect later, and take away what others have recorded since: then the mark
// brings a record back.
//
// Another share may begin below this root, where one server exports both. Where there
// is a .sharevol on the way to a directory, or in it, all is the other share's.
package dirs

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"sharevol.dev/sharevol/internal/volume"
)

// Owner says whose a directory is: a PersistentVolume of a cluster.
type Owner struct {
	// Cluster is the UID of the namespace kube-system.
	Cluster string
	// Volume is the name of the PersistentVolume.
	Volume string
}

// Create asks for a volume directory.
type Create struct {
	SubDir volume.SubDir
	Owner  Owner
	// ShareID is the id that the share must have. An empty one takes whatever id
	// the share has, and makes one if it has none.
	ShareID string
	// Retain says that the volume's data will stay when the volume goes. Only then
	// is a directory used that is there already, as it is; and volumes that are all
	// retained may share one.
	Retain bool
	// Mode is what a new directory gets: permission bits, setgid and sticky,
	// whatever the umask. Zero leaves what mkdir makes under the umask.
	Mode uint32
	// UID and GID own a new directory; -1 leaves what mkdir makes.
	UID, GID int64
}

// Created is what a Create came to.
type Created struct {
	// ShareID is the id of the share.
	ShareID string
	// Made says that sharevol made the directory for this volume, now or in an
	// earlier try; otherwise it was there before.
	Made bool
}

// Target names the directory of a volume that is to go.
type Target struct {
	SubDir volume.SubDir
	Owner  Owner
	// ShareID is the id that the share must have. It must not be empty, unless the
	// volume is Foreign and the id is not known.
	ShareID string
	// Foreign says that another provisioner made the volume: the share has no record
	// of it. Delete and Archive then record the directory themselves, and whoever
	// calls has made sure that no other volume has its data there. Where the share
	// has no id, a missing directory proves nothing and is an error. Release and Drop
	// are not for such volumes.
	Foreign bool
}

// Record is what a share says about one volume.
type Record struct {
	SubDir  volume.SubDir
	Owner   Owner
	ShareID string // of the share that has the record
	Retain  bool
}

// Target returns what Drop takes for the volume of r.
func (r Record) Target() Target { return Target{SubDir: r.SubDir, Owner: r.Owner, ShareID: r.ShareID} }

func (o Owner) check() error {
	if o.Cluster == "" || len(o.Cluster) > maxName || !utf8.ValidString(o.Cluster) {
		return fmt.Errorf("%q is no UID of a cluster", o.Cluster)
	}
	if o.Volume == "" || o.Volume == "." || o.Volume == ".." || len(o.Volume) > maxName ||
		strings.ContainsAny(o.Volume, "/\\\x00") || !utf8.ValidString(o.Volume) {
		return fmt.Errorf("%q is no name of a PersistentVolume", o.Volume)
	}
	return nil
}

// checkSubDir is the last line of defence: whoever calls has parsed it before.
func checkSubDir(dir volume.SubDir) error {
	if _, err := volume.ParseSubDir(string(dir)); err != nil {
		return fmt.Errorf("volume directory %q: %w", dir, err)
	}
	if !utf8.ValidString(string(dir)) {
		return fmt.Errorf("volume directory %q: must be UTF-8", dir)
	}
	return nil
}

func (w Create) check() error {
	errs := []error{checkSubDir(w.SubDir), w.Owner.check()}
	if w.Mode&^0o3777 != 0 {
		errs = append(errs, fmt.Errorf("mode %#o: must be permission bits with setgid and sticky", w.Mode))
	}
	for _, id := range []int64{w.UID, w.GID} {
		if id < -1 || id >= 1<<32-1 {
			errs = append(errs, fmt.Errorf("%d is no user or group", id))
		}
	}
	return errors.Join(errs...)
}

func (t Target) check() error {
	err := errors.Join(checkSubDir(t.SubDir), t.Owner.check())
	if t.ShareID == "" && !t.Foreign {
		err = errors.Join(err, fmt.Errorf("volume directory %q: the id of its share is not known", t.SubDir))
	}
	return err
}
