package replicas

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const keptBySharevol = ".sharevol"

// endState holds the API server and the share against the ledger, all being at rest: every claim bound, with
// one volume, one directory and one record; of what was deleted exactly what its policy leaves. What the
// provisioner does after its start (it looks through the records) may take some seconds.
func (l *ledger) endState(ctx context.Context, t *testing.T) {
	t.Helper()
	var faults []string
	err := waitFor(ctx, "the end state", 30*time.Second, func(ctx context.Context) (bool, string, error) {
		v, err := l.look(ctx)
		if err != nil {
			return false, "", err
		}
		faults, err = l.faults(v)
		return len(faults) == 0, fmt.Sprintf("%d faults", len(faults)), err
	})
	if err != nil {
		t.Errorf("%v:\n%s", err, strings.Join(faults[:min(len(faults), 20)], "\n"))
	}
}

// faults returns all that is not as it should be.
func (l *ledger) faults(v view) ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	found, err := readShare(l.share)
	if err != nil {
		return nil, err
	}
	for volume := range v.volumes {
		found.unaccounted["PersistentVolume "+volume] = true
	}
	var faults []string
	fault := func(e *entry, format string, args ...any) {
		faults = append(faults, fmt.Sprintf("%s claim %s (%s): %s", e.kind.name, e.name, e.volume(), fmt.Sprintf(format, args...)))
	}
	for _, e := range l.claims {
		if e.removed {
			l.checkRemoved(e, found, fault)
		} else {
			l.checkServed(v, e, found, fault)
		}
	}
	for dir := range found.parents {
		if !found.holds(dir) {
			faults = append(faults, "nobody's: empty folder "+dir)
		}
		if name := recordOf(dir) + ".parent"; strings.Contains(found.records[name], `"kind":"parent"`) {
			delete(found.unaccounted, name) // sharevol made it, and removes it some day
		}
	}
	for what := range found.unaccounted {
		faults = append(faults, fmt.Sprintf("nobody's: %s %s", what, found.records[what]))
	}
	return faults, nil
}

type report func(e *entry, format string, args ...any)

// checkServed checks a claim that exists.
func (l *ledger) checkServed(v view, e *entry, found *shareState, fault report) {
	volume, dir := v.volumes[e.volume()], e.kind.path(l.name, e.name, e.volume())
	if volume == nil || !e.marked {
		fault(e, "not served")
		return
	}
	delete(found.unaccounted, "PersistentVolume "+volume.Name)
	if ref := volume.Spec.ClaimRef; ref == nil || ref.UID != e.uid || volume.Status.Phase != "Bound" {
		fault(e, "its volume is %s, for %v", volume.Status.Phase, ref)
	}
	attributes := volume.Spec.CSI.VolumeAttributes
	if attributes["subDir"] != dir || attributes["server"] != l.server || attributes["share"] != sharePath {
		fault(e, "its volume says %v", attributes)
	}
	if found.volumes[dir] != e.text() {
		fault(e, "%s has the data %q", dir, found.volumes[dir])
	}
	delete(found.unaccounted, dir)
	name := recordOf(dir)
	if text := found.records[name]; !strings.Contains(text, e.volume()) || !strings.Contains(text, l.cluster.UID()) {
		fault(e, "the record of %s is %q", dir, text)
	}
	delete(found.unaccounted, name)
	marks := 0 // that sharevol made the directory for its owner, of which there is one
	for other := range found.records {
		if strings.HasPrefix(other, name+".") {
			delete(found.unaccounted, other)
			marks++
		}
	}
	if marks != 1 {
		fault(e, "%s has %d marks", dir, marks)
	}
}

// recordOf is how shareState calls the record of a directory.
func recordOf(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return "record " + hex.EncodeToString(sum[:])
}

// checkRemoved checks what the policy leaves of a claim that was deleted. Where it never was bound, a
// directory may have been made or not.
func (l *ledger) checkRemoved(e *entry, found *shareState, fault report) {
	var places []string
	for dir, text := range found.volumes {
		// an archive has the volume's name; a directory that was never used has no text
		if text == e.text() || text == "" && strings.Contains(dir, e.volume()) {
			places = append(places, dir)
			delete(found.unaccounted, dir)
		}
	}
	dir := e.kind.path(l.name, e.name, e.volume())
	most, least := 1, 1
	if e.kind.onDelete == "delete" {
		most = 0
	}
	if !e.marked || e.kind.onDelete == "delete" {
		least = 0
	}
	switch {
	case len(places) > most || len(places) < least:
		fault(e, "%s: its data is in %q", e.kind.onDelete, places)
	case len(places) == 1 && e.kind.onDelete == "retain" && places[0] != dir:
		fault(e, "its data is in %s, not in %s", places[0], dir)
	case len(places) == 1 && e.kind.onDelete == "archive" && (places[0] == dir || !strings.Contains(places[0], e.volume())):
		fault(e, "its data is in %s, which is no archive's name", places[0])
	}
}

// shareState is what is on a share. All paths are relative to its root.
type shareState struct {
	volumes     map[string]string // directories with data, or with nothing at all, and their markers' texts
	parents     map[string]bool   // all other directories
	records     map[string]string // "record " and the name, to the text
	unaccounted map[string]bool   // all of these but parents, and what should not be there
}

// holds reports whether there is a volume below a parent.
func (s *shareState) holds(parent string) bool {
	for dir := range s.volumes {
		if strings.HasPrefix(dir, parent+"/") {
			return true
		}
	}
	return false
}

func readShare(root string) (*shareState, error) {
	s := &shareState{volumes: map[string]string{}, parents: map[string]bool{}, records: map[string]string{}, unaccounted: map[string]bool{}}
	err := filepath.WalkDir(root, func(full string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it went while it was looked at
		}
		rel, relErr := filepath.Rel(root, full)
		switch {
		case err != nil || relErr != nil || rel == ".":
			return errors.Join(err, relErr)
		case rel == keptBySharevol:
			if err := s.readOwn(full); err != nil {
				return err
			}
			return fs.SkipDir
		case !d.IsDir():
			s.unaccounted["file "+rel] = true
			return nil
		}
		return s.readDir(full, rel)
	})
	return s, err
}

func (s *shareState) readDir(full, rel string) error {
	text, err := os.ReadFile(filepath.Join(full, marker))
	entries, listErr := os.ReadDir(full)
	switch {
	case errors.Is(listErr, fs.ErrNotExist):
		return fs.SkipDir
	case err == nil || len(entries) == 0:
		s.volumes[rel] = string(text)
		s.unaccounted[rel] = true
		return fs.SkipDir
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	s.parents[rel] = true
	return listErr
}

// readOwn reads the folder that sharevol keeps for itself.
func (s *shareState) readOwn(dir string) error {
	own, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range own {
		name := entry.Name()
		if name == "id" {
			continue
		}
		if name != "owners" && name != "trash" {
			s.unaccounted[path.Join(keptBySharevol, name)] = true
			continue
		}
		entries, err := os.ReadDir(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		for _, entry := range entries {
			if name == "trash" {
				s.unaccounted["trash "+entry.Name()] = true
				continue
			}
			text, err := os.Readlink(filepath.Join(dir, name, entry.Name()))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			s.records["record "+entry.Name()] = text
			s.unaccounted["record "+entry.Name()] = true
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// empty checks that a share has nothing on it any more but what sharevol keeps for ever: the share's id.
func empty(t *testing.T, root string) {
	t.Helper()
	for dir, want := range map[string]string{
		".": keptBySharevol, keptBySharevol: "id owners trash", keptBySharevol + "/owners": "", keptBySharevol + "/trash": "",
	} {
		entries, err := os.ReadDir(filepath.Join(root, dir))
		if err != nil {
			t.Error(err)
		}
		var names []string
		for _, entry := range entries {
			names = append(names, entry.Name())
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("on the empty share %s has %q, not %q", dir, got, want)
		}
	}
}
