package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// NodeAddress is the machine's own address; the NFS server and the API server listen on it.
const NodeAddress = "192.0.2.10"

// exportRoot is the folder that the NFS server exports, on a tmpfs of its own.
const exportRoot = "/srv/nfs"

// NFS is the kernel's NFS server, with one export that everybody may write to as root. Clients of
// NFSv4 mount Server:/ or any folder below it; NFSv3 mounts the path that Dir returns.
type NFS struct {
	Server string // the address to mount from
}

// StartNFS starts the machine's NFS server, versions 3 and 4. It runs until the machine ends.
func StartNFS(ctx context.Context) (*NFS, error) {
	if err := os.MkdirAll(exportRoot, 0o755); err != nil {
		return nil, fmt.Errorf("make the export: %w", err)
	}
	if err := unix.Mount("tmpfs", exportRoot, "tmpfs", 0, "mode=777"); err != nil {
		return nil, fmt.Errorf("mount the export: %w", err)
	}
	if err := unix.Mount("nfsd", "/proc/fs/nfsd", "nfsd", 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("mount nfsd's control files: %w", err)
	}
	const state = "/var/lib/nfs"
	for _, dir := range []string{"v4recovery", "sm", "sm.bak"} {
		if err := os.MkdirAll(filepath.Join(state, dir), 0o755); err != nil {
			return nil, fmt.Errorf("make the server's state: %w", err)
		}
	}
	files := map[string]string{
		state + "/etab": "", state + "/rmtab": "",
		// no client of an earlier boot can come back; 10 s is the least that the kernel takes
		"/proc/fs/nfsd/nfsv4gracetime": "10", "/proc/fs/nfsd/nfsv4leasetime": "10",
	}
	for path, text := range files {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return nil, fmt.Errorf("configure the NFS server: %w", err)
		}
	}
	for _, args := range [][]string{
		{"rpcbind", "-w"},
		{"exportfs", "-o", "rw,fsid=0,no_root_squash,no_subtree_check", "*:" + exportRoot},
		{"rpc.nfsd", "8"},
		{"rpc.mountd"},
	} {
		if _, err := output(ctx, args[0], args[1:]...); err != nil {
			return nil, fmt.Errorf("start the NFS server: %w", err)
		}
	}
	return &NFS{Server: NodeAddress}, nil
}

// Dir returns the folder on the server's own side of what clients of NFSv4 see at path.
func (n *NFS) Dir(path string) string { return filepath.Join(exportRoot, path) }

// Share makes a folder of the export that anybody may write to, and returns the path to mount it by.
func (n *NFS) Share(name string) (string, error) {
	dir := n.Dir(name)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return "", fmt.Errorf("make a share: %w", err)
	}
	if err := os.Chmod(dir, 0o777); err != nil { // whatever the umask
		return "", fmt.Errorf("make a share: %w", err)
	}
	return "/" + name, nil
}
