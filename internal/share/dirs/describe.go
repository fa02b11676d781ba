package dirs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// nfsMagic is NFS_SUPER_MAGIC of linux/magic.h.
const nfsMagic = 0x6969

// Description is what a share is like.
type Description struct {
	// ShareID is the share's id, empty if it has none yet.
	ShareID string
	// Fault says why what sharevol keeps on the share can't be read; empty if it can,
	// or if there is nothing.
	Fault string
	// NFS says whether it is an NFS mount, NFSVersion which version the client and
	// the server have agreed on, as the kernel shows it ("4.2"); empty if it does not.
	NFS        bool
	NFSVersion string
	Space      Space
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
	d := Description{NFS: fs.Type == nfsMagic, Space: Space{
		Bytes: fs.Blocks * uint64(fs.Frsize), FreeBytes: fs.Bavail * uint64(fs.Frsize), Inodes: fs.Files, FreeInodes: fs.Ffree,
	}}
	var err error
	if d.NFSVersion, err = nfsVersion(r.dir); err != nil {
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

// nfsVersion returns the NFS version of the mount that dir is on. It asks the kernel
// of this machine only.
func nfsVersion(dir *os.File) (string, error) {
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
	for _, mount := range mounts {
		for option := range strings.SplitSeq(mount.VFSOptions, ",") {
			if version, ok := strings.CutPrefix(option, "vers="); ok && strings.HasPrefix(mount.FSType, "nfs") {
				return version, nil
			}
		}
	}
	return "", nil
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
