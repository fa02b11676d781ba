package dirs

import (
	"errors"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxName is Linux's NAME_MAX, in bytes.
const maxName = 255

const (
	// openDirFlags open a directory to read it.
	openDirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	// pathFlags open one to go on from there, which takes no right to read it.
	pathFlags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
)

// How old an answer of stat may be. A fresh one costs a round trip. That of a
// directory makes the NFS client forget what it believes to be missing there, if
// another client has changed the directory since.
const (
	fresh  = unix.AT_STATX_FORCE_SYNC
	cached = unix.AT_STATX_SYNC_AS_STAT
)

// identity tells a file from all others of the same time.
type identity struct{ dev, ino uint64 }

type stat struct {
	identity
	mode, links, uid, gid uint32
	size                  uint64
	mtime, ctime          int64 // in seconds since 1970
}

func (s stat) perm() uint32 { return s.mode & 0o7777 }
func (s stat) isLink() bool { return s.mode&unix.S_IFMT == unix.S_IFLNK }
func (s stat) isDir() bool  { return s.mode&unix.S_IFMT == unix.S_IFDIR }

// statFile is stat of what is open.
func statFile(file *os.File, age int) (stat, error) {
	return doStat(file, "", age|unix.AT_EMPTY_PATH)
}

// statAt is stat of the entry name, never of what a link leads to.
func statAt(dir *os.File, name string, age int) (stat, error) { return doStat(dir, name, age) }

func doStat(dir *os.File, name string, flags int) (stat, error) {
	flags |= unix.AT_SYMLINK_NOFOLLOW
	var x unix.Statx_t
	err := unix.Statx(int(dir.Fd()), name, flags, unix.STATX_BASIC_STATS, &x)
	if err == nil {
		return stat{
			identity: identity{unix.Mkdev(x.Dev_major, x.Dev_minor), x.Ino}, mode: uint32(x.Mode), links: x.Nlink, uid: x.Uid, gid: x.Gid,
			size: x.Size, mtime: x.Mtime.Sec, ctime: x.Ctime.Sec,
		}, nil
	}
	if !errors.Is(err, unix.ENOSYS) {
		return stat{}, err
	}
	// Before Linux 4.11 there is only the stat that may be as old as the client's
	// attribute cache allows.
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &st, flags&^fresh); err != nil {
		return stat{}, err
	}
	return stat{
		identity: identity{st.Dev, st.Ino}, mode: st.Mode, links: uint32(st.Nlink), uid: st.Uid, gid: st.Gid,
		size: uint64(st.Size), mtime: st.Mtim.Sec, ctime: st.Ctim.Sec,
	}, nil
}

// ignoringEINTR repeats what changes nothing. The Go runtime's own signals may
// interrupt it.
func ignoringEINTR[T any](step func() (T, error)) (T, error) {
	for {
		got, err := step()
		if !errors.Is(err, unix.EINTR) {
			return got, err
		}
	}
}

// openAt opens the directory name in dir. shown is its path in errors. The error
// is the bare one of the system.
func openAt(dir *os.File, name string, flags int, shown string) (*os.File, error) {
	fd, err := ignoringEINTR(func() (int, error) { return unix.Openat(int(dir.Fd()), name, flags, 0) })
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), shown), nil
}

// openSure is openAt by what the server has, not by what the NFS client remembers.
func openSure(dir *os.File, name string, flags int, shown string) (*os.File, error) {
	if _, err := statFile(dir, fresh); err != nil {
		return nil, err
	}
	return openAt(dir, name, flags, shown)
}

// lookAgain makes the client forget what it believes the directory name in dir to be:
// it asks the server before it says that a link of that name can't be made. (No
// directory has hard links, so that none ever is.)
func lookAgain(dir *os.File, name string) {
	_ = unix.Linkat(int(dir.Fd()), name, int(dir.Fd()), name, 0)
}

// makeAccessible gives the owner of a directory all rights to it. file may be open
// with O_PATH, for which there is no fchmod.
func makeAccessible(file *os.File) error {
	st, err := statFile(file, cached)
	if err != nil {
		return err
	}
	return chmodPath(file, st.perm()|0o700)
}

// chmodPath is chmod of what is open, even with O_PATH.
func chmodPath(file *os.File, mode uint32) error {
	return unix.Chmod("/proc/self/fd/"+strconv.Itoa(int(file.Fd())), mode)
}

// isEmpty says whether the open directory has no entry.
func isEmpty(dir *os.File) (bool, error) {
	names, err := firstNames(dir, 1)
	return err == nil && len(names) == 0, err
}

// firstNames returns up to n names of the open directory.
func firstNames(dir *os.File, n int) ([]string, error) {
	if _, err := statFile(dir, fresh); err != nil {
		return nil, err
	}
	file, err := openAt(dir, ".", openDirFlags, dir.Name())
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	names, err := file.Readdirnames(n)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return names, err
}

// place is a name in an open directory: where something is or will be.
type place struct {
	dir   *os.File
	name  string
	shown string // the path from the share root
	owned bool   // dir is closed with the place
}

func (p *place) close() {
	if p.owned {
		_ = p.dir.Close()
	}
}

// enter goes on to the name next in the directory dir, which p was the place of.
func (p *place) enter(dir *os.File, next string) {
	p.close()
	p.dir, p.owned = dir, true
	p.name, p.shown = next, path.Join(p.shown, next)
}

// start returns the place of the first component of the path sub, and the other components.
func (r *Root) start(sub string) (*place, []string) {
	components := strings.Split(sub, "/")
	return &place{dir: r.dir, name: components[0], shown: components[0]}, components[1:]
}

// find returns the place that the path sub is, or nil if a directory above it is
// missing. What the client remembers of the last one's entries is fresh then.
func (r *Root) find(sub string) (*place, error) {
	at, rest := r.start(sub)
	for _, next := range rest {
		dir, err := r.openNext(at)
		if dir == nil || err != nil {
			at.close()
			return nil, err
		}
		at.enter(dir, next)
	}
	if err := r.look(at); err != nil {
		at.close()
		return nil, err
	}
	return at, nil
}

// look asks the server for the directory of at: what the client remembers of its
// entries is fresh then. The root of another share, below that of r, is a conflict.
func (r *Root) look(at *place) error {
	above := path.Dir(at.shown)
	if _, err := statFile(at.dir, fresh); err != nil {
		return stepError("stat", above, err)
	}
	if at.dir == r.dir {
		return nil
	}
	return checkShare(at.dir, above)
}

// openNext opens the directory at at to go on from there, nil if it is missing.
func (r *Root) openNext(at *place) (*os.File, error) {
	if err := r.look(at); err != nil {
		return nil, err
	}
	dir, err := openAt(at.dir, at.name, pathFlags, at.shown)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, openError(at.shown, err)
	}
	return dir, nil
}
