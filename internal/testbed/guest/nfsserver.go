package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// ReadWrite and the next three are export options for NFSServer.Export.
	ReadWrite = "rw,no_root_squash"
	// ReadOnly lets nobody write.
	ReadOnly = "ro,no_root_squash"
	// RootSquash makes root an anonymous user.
	RootSquash = "rw,root_squash"
	// AllSquash makes every user the anonymous one.
	AllSquash = "rw,all_squash"

	// FirstFS is the file system that a server exports to begin with.
	FirstFS = "first"
	// fileSystems is the folder, on the server's side, of its file systems.
	fileSystems = "/srv/fs"

	nfsThreads = "8"
	maxServers = 60
)

// serverScript makes a new pair of namespaces into an NFS server's. What it mounts reaches nothing
// outside; what is unmounted outside is unmounted here too, so that no copy of it stays behind.
// $1 is the server's address, $2 the machine's end of the link.
const serverScript = `
mount --make-rslave /
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /var/lib/nfs
mount -t tmpfs -o mode=755 tmpfs /srv
mkdir -p /var/lib/nfs/v4recovery /var/lib/nfs/sm /var/lib/nfs/sm.bak ` + exportRoot + `
touch /var/lib/nfs/etab /var/lib/nfs/rmtab
ip link set lo up
ip addr add "$1/30" dev eth0
ip link set eth0 up
ip route add default via "$2"
mount -t nfsd nfsd /proc/fs/nfsd
echo 10 >/proc/fs/nfsd/nfsv4gracetime
echo 10 >/proc/fs/nfsd/nfsv4leasetime
rpcbind -w
rpc.statd --no-notify
rpc.mountd
`

// NFSServer is a kernel NFS server, versions 3 and 4, in a network and a mount namespace of its own, at
// the end of a link that can be cut and slowed down. Clients of NFSv4 mount Address:/ or any folder
// below it, those of NFSv3 what PathV3 returns, with nolock.
// Its methods may not be called at the same time.
type NFSServer struct {
	Address string

	link   string // the machine's end
	holder *process
	export string // the export's options
	shown  string // the file system that is exported
}

// StartNFSServer starts one more NFS server, with an empty FirstFS exported ReadWrite. The index, from
// 1 to 60, tells the servers apart. The server runs until Close; ctx bounds only the start.
func StartNFSServer(ctx context.Context, index int) (*NFSServer, error) {
	if index < 1 || index > maxServers {
		return nil, fmt.Errorf("an NFS server's index is 1 to %d, not %d", maxServers, index)
	}
	holder, err := startHolder(fmt.Sprintf("nfs-server-%d", index), 0)
	if err != nil {
		return nil, err
	}
	// TEST-NET-2, which no other part of the machine uses, in networks of two addresses.
	network := "198.51.100."
	s := &NFSServer{
		Address: network + strconv.Itoa(4*index+2), link: fmt.Sprintf("nfs%d", index),
		holder: holder, export: ReadWrite,
	}
	gateway := network + strconv.Itoa(4*index+1)
	if err := s.setUp(ctx, gateway); err != nil {
		return nil, errors.Join(fmt.Errorf("start NFS server %d: %w", index, err), s.Close(ctx))
	}
	return s, nil
}

func (s *NFSServer) setUp(ctx context.Context, gateway string) error {
	if err := connect(ctx, s.link, gateway, s.pid()); err != nil {
		return err
	}
	if err := s.run(ctx, "sh", "-ec", serverScript, "sh", s.Address, gateway); err != nil {
		return err
	}
	if err := s.Show(ctx, FirstFS); err != nil {
		return err
	}
	return s.Start(ctx)
}

func (s *NFSServer) pid() string { return strconv.Itoa(s.holder.cmd.Process.Pid) }

// run runs a command on the server.
func (s *NFSServer) run(ctx context.Context, args ...string) error {
	_, err := output(ctx, "nsenter", append([]string{"--target=" + s.pid(), "--mount", "--net", "--"}, args...)...)
	return err
}

// Dir returns the folder on the server's own side of what clients of NFSv4 see at path.
func (s *NFSServer) Dir(path string) string {
	return filepath.Join("/proc", s.pid(), "root", exportRoot, path)
}

// PathV3 returns the path by which clients of NFSv3 mount what those of NFSv4 see at path.
func (s *NFSServer) PathV3(path string) string { return filepath.Join(exportRoot, path) }

// Start starts the server's threads, also again after Stop.
func (s *NFSServer) Start(ctx context.Context) error { return s.run(ctx, "rpc.nfsd", nfsThreads) }

// Stop ends the server's threads and closes its sockets: clients are refused.
func (s *NFSServer) Stop(ctx context.Context) error { return s.run(ctx, "rpc.nfsd", "0") }

// LinkDown cuts the link: what clients send is lost without a word.
func (s *NFSServer) LinkDown(ctx context.Context) error {
	_, err := output(ctx, "ip", "link", "set", s.link, "down")
	return err
}

// LinkUp undoes LinkDown.
func (s *NFSServer) LinkUp(ctx context.Context) error {
	_, err := output(ctx, "ip", "link", "set", s.link, "up")
	return err
}

// Delay makes every request take d longer; 0 ends that.
func (s *NFSServer) Delay(ctx context.Context, d time.Duration) error {
	_, err := output(ctx, "tc", "qdisc", "replace", "dev", s.link, "root", "netem", "delay", fmt.Sprintf("%dms", d.Milliseconds()))
	return err
}

// Export exports the server's file system with other options: ReadWrite, ReadOnly, RootSquash, AllSquash
// or exports(5)'s own. It undoes Unexport.
func (s *NFSServer) Export(ctx context.Context, options string) error {
	s.export = options
	if err := s.run(ctx, "exportfs", "-o", "fsid=0,no_subtree_check,"+options, "*:"+exportRoot); err != nil {
		return err
	}
	return s.run(ctx, "exportfs", "-f") // what the kernel remembers of before
}

// Unexport takes the export away while the server runs on: its handles are stale until Export.
func (s *NFSServer) Unexport(ctx context.Context) error {
	if err := s.run(ctx, "exportfs", "-ua"); err != nil {
		return err
	}
	return s.run(ctx, "exportfs", "-f")
}

// Show exports the file system of that name, made empty when it is new, in the place of the one that is
// exported now. That one keeps its files, for another Show.
func (s *NFSServer) Show(ctx context.Context, name string) error {
	dir := filepath.Join(fileSystems, name)
	if s.shown != "" {
		if err := s.Unexport(ctx); err != nil {
			return err
		}
		// lazily: a request that is being served may still hold it
		if err := s.run(ctx, "umount", "-l", exportRoot); err != nil {
			return err
		}
	}
	if err := s.run(ctx, "sh", "-ec", `mountpoint -q "$1" || { mkdir -p "$1"; mount -t tmpfs -o mode=777 tmpfs "$1"; }
mount --bind "$1" `+exportRoot, "sh", dir); err != nil {
		return err
	}
	s.shown = name
	return s.Export(ctx, s.export)
}

// Limit sets tmpfs' options of the exported file system, such as nr_inodes=20 or size=1m; 0 is no limit.
func (s *NFSServer) Limit(ctx context.Context, options string) error {
	return s.run(ctx, "mount", "-o", "remount,"+options, filepath.Join(fileSystems, s.shown))
}

// Calls returns how many calls the server has received so far.
func (s *NFSServer) Calls() (int, error) {
	statistics, err := os.ReadFile(filepath.Join("/proc", s.pid(), "net/rpc/nfsd"))
	if err != nil {
		return 0, fmt.Errorf("count the server's calls: %w", err)
	}
	_, line, _ := strings.Cut(string(statistics), "\nrpc ")
	var calls int
	if _, err := fmt.Sscan(line, &calls); err != nil {
		return 0, fmt.Errorf("count the server's calls: %w", err)
	}
	return calls, nil
}

// Close ends the server and everything of it. Clients that still have it mounted see a dead server.
func (s *NFSServer) Close(ctx context.Context) error {
	errs := []error{s.Stop(ctx), s.Unexport(ctx)}
	_, err := output(ctx, "ip", "link", "del", s.link)
	return errors.Join(append(errs, err, s.killAll(), s.holder.stop())...)
}

// killAll ends the daemons, which have left the holder's process group.
func (s *NFSServer) killAll() error {
	own, err := os.Readlink("/proc/" + s.pid() + "/ns/mnt")
	if err != nil {
		return fmt.Errorf("find the server's processes: %w", err)
	}
	namespaces, err := filepath.Glob("/proc/[0-9]*/ns/mnt")
	if err != nil {
		return fmt.Errorf("find the server's processes: %w", err)
	}
	for _, path := range namespaces {
		pid, err := strconv.Atoi(strings.Split(path, "/")[2])
		if err != nil || pid == s.holder.cmd.Process.Pid {
			continue
		}
		if other, err := os.Readlink(path); err != nil || other != own {
			continue // it has ended, or is somebody else's
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("end the server's processes: %w", err)
		}
	}
	return nil
}
