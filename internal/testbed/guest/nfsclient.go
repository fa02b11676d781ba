package guest

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// clientScript makes new namespaces into those of another machine. Servers tell clients apart by the host's name.
// $1 is the client's name, $2 its address, $3 the machine's end of the link.
const clientScript = `
mount --make-rslave /
mount -t tmpfs -o mode=755 tmpfs /srv
hostname "$1"
ip link set lo up
ip addr add "$2/30" dev eth0
ip link set eth0 up
ip route add default via "$3"
`

// NFSClient is one more client of NFS servers: to them it is another machine, with its own connections. Its
// methods may not be called at the same time.
type NFSClient struct {
	link   string
	holder *process
	mounts []string
}

// StartNFSClient starts a client. The index, from 1 to 60, tells the clients apart. It is there until Close; ctx
// bounds only the start.
func StartNFSClient(ctx context.Context, index int) (*NFSClient, error) {
	if index < 1 || index > maxServers {
		return nil, fmt.Errorf("an NFS client's index is 1 to %d, not %d", maxServers, index)
	}
	name := fmt.Sprintf("nfs-client-%d", index)
	holder, err := startHolder(name, unix.CLONE_NEWUTS)
	if err != nil {
		return nil, err
	}
	c := &NFSClient{link: fmt.Sprintf("client%d", index), holder: holder}
	// TEST-NET-3, in networks of two addresses.
	network := "203.0.113."
	gateway, address := network+strconv.Itoa(4*index+1), network+strconv.Itoa(4*index+2)
	err = connect(ctx, c.link, gateway, c.pid())
	if err == nil {
		err = c.run(ctx, "sh", "-ec", clientScript, "sh", name, address, gateway)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start NFS client %d: %w", index, err), c.Close(ctx))
	}
	return c, nil
}

func (c *NFSClient) pid() string { return strconv.Itoa(c.holder.cmd.Process.Pid) }

func (c *NFSClient) run(ctx context.Context, args ...string) error {
	_, err := output(ctx, "nsenter", append([]string{"--target=" + c.pid(), "--mount", "--net", "--uts", "--"}, args...)...)
	return err
}

// Mount mounts source, as mount(8) takes it, and returns the folder by which this machine's programs use it
// through the client.
func (c *NFSClient) Mount(ctx context.Context, source string, options ...string) (string, error) {
	target := fmt.Sprintf("/srv/%d", len(c.mounts))
	if err := c.run(ctx, "mkdir", target); err != nil {
		return "", err
	}
	if err := c.run(ctx, "mount", "-t", "nfs", "-o", strings.Join(options, ","), source, target); err != nil {
		return "", err
	}
	c.mounts = append(c.mounts, target)
	return filepath.Join("/proc", c.pid(), "root", target), nil
}

// Close unmounts everything, which nobody may use any more, and ends the client.
func (c *NFSClient) Close(ctx context.Context) error {
	var all []error
	for _, target := range c.mounts {
		all = append(all, c.run(ctx, "umount", target))
	}
	_, err := output(ctx, "ip", "link", "del", c.link)
	return errors.Join(append(all, err, c.holder.stop())...)
}

// connect makes a link between the machine, with an address, and the namespace of a process, where it is eth0.
func connect(ctx context.Context, link, address, pid string) error {
	for _, args := range []string{
		"link add " + link + " type veth peer name eth0 netns " + pid,
		"addr add " + address + "/30 dev " + link,
		"link set " + link + " up",
	} {
		if _, err := output(ctx, "ip", strings.Fields(args)...); err != nil {
			return err
		}
	}
	return nil
}

// startHolder starts a process that does nothing but keep new namespaces: of mounts, of the network, and more.
func startHolder(name string, more uintptr) (*process, error) {
	cmd := exec.Command("sleep", "infinity")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | more}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("make the namespaces of %s: %w", name, err)
	}
	p := &process{name: name, cmd: cmd, exited: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // it is ended by a signal
		close(p.exited)
	}()
	return p, nil
}
