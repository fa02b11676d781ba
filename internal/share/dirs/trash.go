package dirs

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"
)

// lookInTrash lists what is in the trash.
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
}
