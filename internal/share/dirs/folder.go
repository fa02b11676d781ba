package dirs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// What is at the share root; see the package.
const (
	folderName = ".sharevol"
	idName     = "id"
	ownersName = "owners"
	trashName  = "trash"
)

const idPrefix = "id:"

// idForm is what rand.Text makes: 130 bits in base32.
var idForm = regexp.MustCompile(`^[A-Z2-7]{26}$`)

// errNoFolder says that a share has no .sharevol.
var errNoFolder = errors.New("the share has no " + folderName)

// folder is the open .sharevol of a share with its id.
type folder struct {
	dir, link, owners *os.File // link is the id itself, open with O_PATH
	id                string
	refs              int
}

// open returns .sharevol for one call, which releases it. It proves that the share
// is still the one that it was, for which it asks the server, and that its id is
// want. If that is empty, any id will do, and one is made if create says so.
func (r *Root) open(ctx context.Context, want string, create bool) (*folder, error) {
	f := r.opened()
	if f != nil && !f.isCurrent(r.dir) {
		r.forget(f)
		r.release(f)
		f = nil
	}
	if f == nil {
		anew, err := r.openFolder(ctx, want, create && want == "")
		if errors.Is(err, errNoFolder) && want != "" {
			return nil, otherShare(want, "")
		}
		if err != nil {
			return nil, err
		}
		f = r.keep(anew)
	}
	if want != "" && f.id != want {
		defer r.release(f)
		return nil, otherShare(want, f.id)
	}
	return f, nil
}

// isCurrent says whether .sharevol is still what is open. If the server has put
// another file system in its place, the handle of the id is stale. Asking for the
// owners too makes the client forget which records it believes to be missing.
func (f *folder) isCurrent(root *os.File) bool {
	if _, err := statFile(root, fresh); err != nil {
		return false
	}
	for _, at := range []struct {
		dir  *os.File
		name string
		open *os.File
		age  int
	}{{root, folderName, f.dir, cached}, {f.dir, idName, f.link, fresh}, {f.dir, ownersName, f.owners, fresh}} {
		// By what is open, as the server may give the number of a removed file to the
		// next one; and by its name, as a client keeps under another one what it
		// removes while it is open.
		open, err := statFile(at.open, at.age)
		if err != nil || open.links == 0 {
			return false
		}
		now, err := statAt(at.dir, at.name, cached)
		if err != nil || now.identity != open.identity {
			return false
		}
	}
	return true
}

// openFolder opens .sharevol, and makes it if create says so. If the id is not
// want, nothing is changed.
func (r *Root) openFolder(ctx context.Context, want string, create bool) (_ *folder, err error) {
	f := &folder{refs: 1}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	if f.dir, err = r.subfolder(ctx, r.dir, folderName, folderName, create); err != nil {
		return nil, err
	}
	if f.link, f.id, err = r.openID(ctx, f.dir, create); err != nil {
		return nil, err
	}
	if want != "" && f.id != want {
		return nil, otherShare(want, f.id)
	}
	if f.owners, err = r.subfolder(ctx, f.dir, ownersName, folderName+"/"+ownersName, true); err != nil {
		return nil, err
	}
	if _, err := statFile(f.owners, fresh); err != nil {
		return nil, stepError("stat", folderName+"/"+ownersName, err)
	}
	if create {
		// Not when the first volume goes: that may be because the share is full.
		trash, err := r.subfolder(ctx, f.dir, trashName, folderName+"/"+trashName, true)
		if err != nil {
			return nil, err
		}
		_ = trash.Close()
	}
	return f, nil
}

// subfolder opens one of our folders, and makes it if create says so. Without one
// it returns errNoFolder.
func (r *Root) subfolder(ctx context.Context, in *os.File, name, shown string, create bool) (*os.File, error) {
	dir, err := openSure(in, name, pathFlags, shown)
	if errors.Is(err, unix.ENOENT) {
		if !create {
			return nil, errNoFolder
		}
		if err := r.permit(ctx); err != nil {
			return nil, err
		}
		if err := unix.Mkdirat(int(in.Fd()), name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, stepError("mkdir", shown, err)
		}
		dir, err = openAt(in, name, pathFlags, shown)
	}
	if isNoDirectory(err) {
		return nil, fmt.Errorf("%s is a link or a file, not the folder that sharevol keeps on a share: left alone", shown)
	}
	if err != nil {
		return nil, stepError("open", shown, err)
	}
	return dir, nil
}

// openID opens and reads the id, and makes one if there is none and create says so.
func (r *Root) openID(ctx context.Context, in *os.File, create bool) (*os.File, string, error) {
	const shown = folderName + "/" + idName
	const flags = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	link, err := openSure(in, idName, flags, shown)
	if errors.Is(err, unix.ENOENT) {
		if !create {
			return nil, "", errNoFolder
		}
		if err := r.permit(ctx); err != nil {
			return nil, "", err
		}
		// Of several that make one, the first wins, and all read what is there.
		if err := unix.Symlinkat(idPrefix+rand.Text(), int(in.Fd()), idName); err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, "", stepError("symlink", shown, err)
		}
		link, err = openAt(in, idName, flags, shown)
	}
	if err != nil {
		return nil, "", stepError("open", shown, err)
	}
	id, err := readID(link)
	if err != nil {
		_ = link.Close()
		return nil, "", err
	}
	return link, id, nil
}

func readID(link *os.File) (string, error) {
	st, err := statFile(link, fresh)
	if err != nil {
		return "", stepError("stat", link.Name(), err)
	}
	if !st.isLink() {
		return "", fmt.Errorf("%s is not the symbolic link that sharevol makes: the share's id can't be read", link.Name())
	}
	text, err := readlinkAt(link, "")
	if err != nil {
		return "", stepError("readlink", link.Name(), err)
	}
	id, ok := strings.CutPrefix(text, idPrefix)
	if !ok || !idForm.MatchString(id) {
		return "", fmt.Errorf("%s does not have the form that sharevol gives it: %.100q", link.Name(), text)
	}
	return id, nil
}

// readlinkAt returns the text of the link name in dir, or of dir itself, a link.
func readlinkAt(dir *os.File, name string) (string, error) {
	text := make([]byte, maxLink+1)
	n, err := ignoringEINTR(func() (int, error) { return unix.Readlinkat(int(dir.Fd()), name, text) })
	if err != nil {
		return "", err
	}
	return string(text[:n]), nil
}

// opened returns the folder that is open, if any, for one call.
func (r *Root) opened() *folder {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.folder != nil {
		r.folder.refs++
	}
	return r.folder
}

// keep keeps f for later calls, and returns it for this one.
func (r *Root) keep(f *folder) *folder {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed { // after this call began
		return f
	}
	r.drop(r.folder)
	r.folder = f
	f.refs++
	return f
}

// forget lets later calls open .sharevol anew.
func (r *Root) forget(f *folder) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.folder == f {
		r.folder = nil
		r.drop(f)
	}
}

func (r *Root) release(f *folder) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop(f)
}

// drop gives up one reference; r.mu is held.
func (r *Root) drop(f *folder) {
	if f == nil {
		return
	}
	if f.refs--; f.refs == 0 {
		f.close()
	}
}

func (f *folder) close() {
	for _, file := range []*os.File{f.dir, f.link, f.owners} {
		if file != nil {
			_ = file.Close()
		}
	}
}
