package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	path = "/usr/sbin:/usr/bin:/sbin:/bin"
	// hostname, too, is the node's name in the cluster.
	hostname = "node1"
	// nodeAddress is of a range that is reserved for documentation (RFC 5737). Nothing else is there:
	// the machine has no way out.
	nodeAddress = "192.0.2.10/24"
)

// configure does what on other machines udev, ifup and systemd do.
func configure() error {
	if err := loadModules("dummy", "bridge", "veth", "br_netfilter", "nfsd", "nfs", "nfsv3", "nfsv4"); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(hostname)); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	hosts := "127.0.0.1 localhost\n" + strings.TrimSuffix(nodeAddress, "/24") + " " + hostname + "\n"
	if err := os.WriteFile("/etc/hosts", []byte(hosts), 0o644); err != nil {
		return fmt.Errorf("write the hosts file: %w", err)
	}
	// the user-mode kernel has no cpuset controller, and kubelet does without
	if err := os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+cpu +memory +pids +io"), 0o644); err != nil {
		return fmt.Errorf("turn the cgroup controllers on: %w", err)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		return fmt.Errorf("turn forwarding on: %w", err)
	}
	if err := nameClockSpeed(); err != nil {
		return err
	}
	for _, args := range []string{
		"link set lo up",
		"addr add " + nodeAddress + " dev dummy0", // the module makes it
		"link set dummy0 up",
		"route add default dev dummy0", // kubelet and the API server look for the address on it
	} {
		if err := command("ip", strings.Fields(args)...); err != nil {
			return err
		}
	}
	return nil
}

func loadModules(names ...string) error {
	return command("modprobe", append([]string{"-a"}, names...)...)
}

// nameClockSpeed adds the line of /proc/cpuinfo that kubelet reads and a user-mode kernel leaves out.
func nameClockSpeed() error {
	const copied = "/run/cpuinfo"
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return fmt.Errorf("read the processor's data: %w", err)
	}
	text := strings.ReplaceAll(string(info), "bogomips", "cpu MHz\t\t: 2000.000\nbogomips")
	if err := os.WriteFile(copied, []byte(text), 0o444); err != nil {
		return fmt.Errorf("copy the processor's data: %w", err)
	}
	if err := unix.Mount(copied, "/proc/cpuinfo", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("put the processor's data in place: %w", err)
	}
	return nil
}

// command runs one of the root file system's programs. Nothing else collects children yet.
func command(name string, args ...string) error {
	if err := os.Setenv("PATH", path); err != nil {
		return err
	}
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}
