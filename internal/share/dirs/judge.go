package dirs

import (
	"errors"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"sharevol.dev/sharevol/internal/volume"
)

// archivePrefix begins the names of archives, ours and those of
// nfs-subdir-external-provisioner and csi-driver-nfs.
const archivePrefix = "archived-"

// notVolumes are the directories that servers and file systems have at the root of
// an export by themselves.
var notVolumes = []string{"lost+found", ".snapshot", ".zfs", "@eaDir", "#recycle", "#snapshot"}

// named says whether something names the path, or a path below it.
func (s *survey) named(shown string) (at, below bool) {
	_, at = slices.BinarySearch(s.ask.Others, volume.SubDir(shown))
	i, _ := slices.BinarySearch(s.ask.Others, volume.SubDir(shown+"/"))
	return at, i < len(s.ask.Others) && strings.HasPrefix(string(s.ask.Others[i]), shown+"/")
}

// judge says what the entry name of dir is, and whether to descend into it.
func (s *survey) judge(dir *os.File, shown, name string) (descend bool) {
	if shown == "" && (name == folderName || slices.Contains(notVolumes, name)) {
		return false
	}
	shown = path.Join(shown, name)
	at, below := s.named(shown)
	if at {
		return false // what is in it is the volume's
	}
	st, err := statAt(dir, name, cached)
	switch {
	case err != nil:
		s.unreadEntry(shown, err)
		return false
	case !st.isDir(), below:
		return below && st.isDir()
	}
	r, parent, err := s.recorded(shown)
	changed := time.Unix(st.mtime, 0)
	switch {
	case err != nil:
		s.unread(shown, err)
	case r != nil && r.Cluster != s.ask.Cluster: // one that can't be read, too
		s.foreign()
	case r != nil && r.Kind == kindVolume:
		s.orphan(Orphan{Path: shown, Volume: r.Volume, Changed: changed})
	case parent:
		return true
	case s.isShare(dir, name, shown):
	case strings.HasPrefix(name, archivePrefix):
		kept := Kept{Path: shown, Since: time.Unix(st.ctime, 0)}
		if r != nil {
			kept.Volume, kept.Owner = r.Volume, OwnerThis
		}
		s.archive(kept)
	case !s.whole:
		s.orphan(Orphan{Path: shown, Changed: changed})
	}
	return false
}

// isShare says whether the directory name of dir is the root of another share, as far as
// its mode lets that be seen: what is in it is recorded there.
func (s *survey) isShare(dir *os.File, name, shown string) bool {
	below, err := openAt(dir, name, pathFlags, shown)
	if err != nil {
		return false
	}
	defer func() { _ = below.Close() }()
	return errors.Is(checkShare(below, shown), ErrConflict)
}

// recorded returns the record of the volume or archive at the path, if there is one,
// and whether it is recorded as a parent.
func (s *survey) recorded(shown string) (r *record, parent bool, err error) {
	if s.folder == nil || s.folder.owners == nil {
		return nil, false, nil
	}
	if r, err = s.record(shown); err != nil || r != nil {
		return r, false, err
	}
	p, err := s.parent(shown)
	return nil, p != nil && p.Kind == kindParent, err
}
