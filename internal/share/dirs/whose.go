package dirs

import (
	"context"
	"os"
	"slices"
	"strings"
)

// findOwners looks for the records of the volumes in the trash, and for the marks of
// orphans, which may have lost their records. A record has its name from the volume's
// directory, which the trash does not tell, and a mark has the owner in its name, too,
// which the directory does not tell: all names are looked at.
func (s *survey) findOwners(ctx context.Context) {
	if s.folder == nil || s.folder.owners == nil {
		return
	}
	trashed := make(map[string]*Kept, len(s.found.Trash))
	for i := range s.found.Trash {
		trashed[s.found.Trash[i].Volume] = &s.found.Trash[i]
	}
	unknown := map[string]*Orphan{} // by the names that their records would have
	for i := range s.found.Orphans {
		if o := &s.found.Orphans[i]; o.Volume == "" {
			unknown[recordName(o.Path)] = o
		}
	}
	if len(trashed) == 0 && len(unknown) == 0 {
		return
	}
	theirs := map[string]bool{} // orphans of other clusters
	s.list(ctx, s.folder.owners, folderName+"/"+ownersName, func(_ *os.File, name string) {
		var orphan *Orphan
		switch {
		case isMarkName(name) && !strings.HasSuffix(name, leftSuffix):
			orphan = unknown[name[:recordNameLength]]
		case !isRecordName(name) && !isMarkName(name):
			return
		}
		if orphan == nil && len(trashed) == 0 {
			return
		}
		text, err := readlinkAt(s.folder.owners, name)
		r := parseEither(name, text)
		if err != nil || r.Kind != kindVolume {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case orphan == nil:
		case r.Cluster == s.ask.Cluster:
			orphan.Volume = r.Volume
		default:
			theirs[orphan.Path] = true
		}
		if kept := trashed[r.Volume]; kept != nil {
			kept.own(r.Cluster == s.ask.Cluster)
		}
	}, func(*os.File) {})
	s.found.Foreign += len(theirs)
	s.found.Orphans = slices.DeleteFunc(s.found.Orphans, func(o Orphan) bool { return theirs[o.Path] })
}

// own notes that a record of this cluster, or of another one, speaks for what is kept.
func (k *Kept) own(this bool) {
	switch {
	case this:
		k.Owner = OwnerThis
	case k.Owner == "":
		k.Owner = OwnerOther
	}
}
