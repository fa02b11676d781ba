package dirs

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/volume"
)

// found is a volume directory that is there.
type found struct {
	*place
	file   *os.File // open with O_PATH: holds the inode, so that no other gets its number
	stat   stat
	isRoot bool // of another file system
	hidden bool // its mode forbids to look whether it is the root of another share
}

func (f *found) close() {
	if f != nil {
		_ = f.file.Close()
		f.place.close()
	}
}

// findDir returns the directory sub, or nil if it is missing. A link, a file or the
// root of another share in its place is a conflict.
func (r *Root) findDir(sub volume.SubDir) (*found, error) {
	at, err := r.find(string(sub))
	if at == nil || err != nil {
		return nil, err
	}
	dir, err := openVolume(at)
	if dir == nil || err != nil {
		at.close()
	}
	return dir, err
}

// openVolume is openFound of what must not be the root of another share, as far as
// its mode lets that be seen.
func openVolume(at *place) (*found, error) {
	dir, err := openFound(at)
	if dir == nil || err != nil {
		return nil, err
	}
	if err = checkShare(dir.file, dir.shown); isDenied(err) {
		dir.hidden, err = true, nil
	}
	if err != nil {
		_ = dir.file.Close()
		return nil, err
	}
	return dir, nil
}

// openFound opens the directory at at, nil if it is missing.
func openFound(at *place) (*found, error) {
	file, err := openAt(at.dir, at.name, pathFlags, at.shown)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, openError(at.shown, err)
	}
	st, err := statFile(file, fresh)
	var above stat
	if err == nil {
		above, err = statFile(at.dir, cached)
	}
	if err != nil {
		_ = file.Close()
		return nil, stepError("stat", at.shown, err)
	}
	return &found{place: at, file: file, stat: st, isRoot: st.dev != above.dev}, nil
}

// checkShare says if the directory, below the share root, is the root of another
// share: one server may export both, and what is in there is recorded in its own
// .sharevol. The client's memory of dir must be fresh.
func checkShare(dir *os.File, shown string) error {
	_, err := statAt(dir, folderName, cached)
	switch {
	case err == nil:
		return conflictf("%s is the root of another share: it has a %s of its own", shown, folderName)
	case errors.Is(err, unix.ENOENT):
		return nil
	}
	return stepError("look into", shown, err)
}
