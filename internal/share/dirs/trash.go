package dirs

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"
)

// lookInTrash lists what is in the trash, and finds out whose it is.
func (s *survey) lookInTrash(ctx context.Context) {
	if s.folder == nil || s.over(ctx) {
		return
	}
	const shown = folderName + "/" + trashName
	trash, err := s.root.subfolder(ctx, s.folder.dir, trashName, shown, false)
	if errors.Is(err, errNoFolder) {
		return
	}
	if err != nil {
		s.unread(shown, err)
		return
	}
	defer func() { _ = trash.Close() }()
	s.list(ctx, trash, shown, func(dir *os.File, name string) {
		st, err := statAt(dir, name, cached)
		if err != nil {
			s.unreadEntry(shown+"/"+name, err)
			return
		}
		kept := Kept{Path: shown + "/" + name, Since: time.Unix(st.ctime, 0)}
		if !strings.HasPrefix(name, misplacedPrefix) {
			kept.Volume = name
		}
		s.trash(kept)
	}, func(*os.File) {})
	s.findOwners(ctx)
}

// findOwners looks for the records of the volumes in the trash. A record has its name
// from the volume's directory, which the trash does not tell.
func (s *survey) findOwners(ctx context.Context) {
	if len(s.found.Trash) == 0 || s.folder.owners == nil {
		return
	}
	trashed := make(map[string]*Kept, len(s.found.Trash))
	for i := range s.found.Trash {
		trashed[s.found.Trash[i].Volume] = &s.found.Trash[i]
	}
	s.list(ctx, s.folder.owners, folderName+"/"+ownersName, func(_ *os.File, name string) {
		if len(name) != len(recordName("")) {
			return
		}
		r, err := s.read(name)
		if r == nil || err != nil || r.Kind != kindVolume {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		kept, there := trashed[r.Volume]
		switch {
		case !there:
		case r.Cluster == s.ask.Cluster:
			kept.Owner = OwnerThis
		case kept.Owner == "":
			kept.Owner = OwnerOther
		}
	}, func(*os.File) {})
}
