package dirs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Description is what a share is like.
type Description struct {
	// ShareID is the share's id, empty if it has none yet.
	ShareID string
	// Fault says why what sharevol keeps on the share can't be read; empty if it can,
	// or if there is nothing.
	Fault string
	// Magic is the number of its type of file system, MountOptions are those that the kernel
	// shows for it; empty if it shows none. Package fs has what they mean.
	Magic        int64
	MountOptions string
	Space        Space
}

// Space is that of the file system of a share.
type Space struct {
	Bytes, FreeBytes   uint64 // free for ordinary users
	Inodes, FreeInodes uint64 // both zero if the server counts none
}

// Describe says what the share is like. It changes nothing, and makes no .sharevol.
func (r *Root) Describe(ctx context.Context) (Description, error) {
	if err := r.enter(ctx); err != nil {
		return Description{}, untouched(err)
	}
	defer r.leave()
	var fs unix.Statfs_t
	if _, err := ignoringEINTR(func() (int, error) { return 0, unix.Fstatfs(int(r.dir.Fd()), &fs) }); err != nil {
		return Description{}, untouched(stepError("statfs", "the share root", err))
	}
	d := Description{Magic: int64(fs.Type), Space: Space{
		Bytes: fs.Blocks * uint64(fs.Frsize), FreeBytes: fs.Bavail * uint64(fs.Frsize), Inodes: fs.Files, FreeInodes: fs.Ffree,
	}}
	var err error
	if d.MountOptions, err = mountOptions(r.dir); err != nil {
		return Description{}, untouched(err)
	}
	f, err := r.lookIn(ctx)
	switch {
	case errors.Is(err, errNoFolder):
	case err != nil && (errors.Is(err, unix.ESTALE) || isEnded(err)):
		return Description{}, untouched(err)
	case err != nil:
		d.Fault = err.Error()
	default:
		d.ShareID = f.id
		f.close()
	}
	return d, nil
}

// lookIn opens .sharevol as it is, without making anything: owners is nil if that
// folder is missing. Without .sharevol, or without its id, it returns errNoFolder.
func (r *Root) lookIn(ctx context.Context) (_ *folder, err error) {
	f := &folder{refs: 1}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	if _, err := statFile(r.dir, fresh); err != nil {
		return nil, stepError("stat", "the share root", err)
	}
	if f.dir, err = r.subfolder(ctx, r.dir, folderName, folderName, false); err != nil {
		return nil, err
	}
	if f.link, f.id, err = r.openID(ctx, f.dir, false); err != nil {
		return nil, err
	}
	f.owners, err = r.subfolder(ctx, f.dir, ownersName, folderName+"/"+ownersName, false)
	if errors.Is(err, errNoFolder) {
		f.owners, err = nil, nil
	}
	return f, err
}

// mountOptions returns the file system's options of the mount that dir is on. It asks the
// kernel of this machine only.
func mountOptions(dir *os.File) (string, error) {
	id, err := mountID(dir)
	if id == 0 || err != nil {
		return "", err
	}
	table, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer func() { _ = table.Close() }()
	mounts, err := mountinfo.GetMountsFromReader(table, func(info *mountinfo.Info) (skip, stop bool) { return info.ID != id, info.ID == id })
	if err != nil {
		return "", fmt.Errorf("read the table of mounts: %w", err)
	}
	if len(mounts) == 0 {
		return "", nil
	}
	return mounts[0].VFSOptions, nil
}

// mountID returns the number that the table of mounts has for the mount of an open
// file, zero if the kernel does not say (it does since Linux 3.15).
func mountID(file *os.File) (id int, err error) {
	info, err := os.Open(fmt.Sprintf("/proc/self/fdinfo/%d", file.Fd()))
	if err != nil {
		return 0, err
	}
	defer func() { _ = info.Close() }()
	lines := bufio.NewScanner(info)
	for lines.Scan() {
		if n, _ := fmt.Sscanf(lines.Text(), "mnt_id: %d", &id); n == 1 {
			return id, nil
		}
	}
	return 0, lines.Err()
}
