// Command guestinit is process 1 of a testbed machine. It makes the bare root file system into what a
// Kubernetes node expects, runs one command, and powers the machine off with the command's exit status
// left in the share. It expects the share at /testbed and the root file system read-only.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const (
	share      = "/testbed"
	planFile   = share + "/plan.json"
	statusFile = share + "/exit-status"
	// syncEvery bounds what is lost of the logs in the share when the machine is ended by force.
	syncEvery = 2 * time.Second
)

func main() {
	status, err := run()
	message := ""
	if err != nil {
		message = "\n" + err.Error()
	}
	// nothing is left to tell a failure to but the console
	if err := leaveStatus(strconv.Itoa(status) + message); err != nil {
		fmt.Println("guestinit:", err)
	}
	// the kernel's parting words are none of the command's output; if they can't be kept back, so be it
	_ = os.WriteFile("/proc/sys/kernel/printk", []byte("0 0 0 0"), 0o644)
	// not through sync(2), which would wait for ever on the mount of a dead NFS server
	_ = syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
}

// run returns the command's exit status, or an error when the command could not be started.
func run() (int, error) {
	data, err := os.ReadFile(planFile)
	if err != nil {
		return 0, fmt.Errorf("read the plan: %w", err)
	}
	var plan struct{ Command, Env []string }
	if err := json.Unmarshal(data, &plan); err != nil {
		return 0, fmt.Errorf("read the plan: %w", err)
	}
	if len(plan.Command) == 0 {
		return 0, errors.New("the plan has no command")
	}
	if err := mountAll(); err != nil {
		return 0, err
	}
	if err := configure(); err != nil {
		return 0, err
	}
	go func() {
		for range time.Tick(syncEvery) {
			_ = syncShare() // only makes logs fresher
		}
	}()
	env := append([]string{"PATH=" + path, "HOME=/root", "TMPDIR=/tmp"}, plan.Env...)
	return supervise(plan.Command, env)
}

// supervise runs command and collects every process that ends, as process 1 has to.
func supervise(command, env []string) (int, error) {
	child, err := os.StartProcess(command[0], command, &os.ProcAttr{
		Dir: share, Env: env, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		return 0, fmt.Errorf("start the command: %w", err)
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("wait for the command: %w", err)
		}
		if pid != child.Pid {
			continue
		}
		if status.Signaled() {
			return 128 + int(status.Signal()), nil
		}
		return status.ExitStatus(), nil
	}
}

// leaveStatus writes the status file, and everything else in the share, through to the host.
func leaveStatus(text string) error {
	temp := filepath.Join(share, ".exit-status")
	if err := os.WriteFile(temp, []byte(text), 0o644); err != nil {
		return fmt.Errorf("write the exit status: %w", err)
	}
	if err := syncShare(); err != nil {
		return err
	}
	if err := os.Rename(temp, statusFile); err != nil {
		return fmt.Errorf("write the exit status: %w", err)
	}
	return nil
}
