package nfsmount

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// killGrace is how long a killed command may take to be gone. The kernel's NFS
// waits end at once on SIGKILL; whatever does not is left to itself, so that the
// caller returns.
const killGrace = 5 * time.Second

// run runs a command in a process group of its own and returns what it printed,
// trimmed. When ctx ends the whole group is killed, helpers of mount(8) included,
// and the error matches ctx.Err().
func run(ctx context.Context, name string, args ...string) (string, error) {
	var output bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.Env = append(cmd.Environ(), "LC_ALL=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// A grandchild that keeps the pipe open must not keep us.
	cmd.WaitDelay = killGrace
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		return strings.TrimSpace(output.String()), err
	case <-ctx.Done():
	}
	select {
	case err := <-done: // both were ready: the process id may be another's by now
		return strings.TrimSpace(output.String()), err
	default:
	}
	// The group is named by its leader's process id. ESRCH: it has just ended.
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return "", errors.Join(ctx.Err(), fmt.Errorf("kill %s: %w", name, err))
	}
	select {
	case <-done:
		return strings.TrimSpace(output.String()), fmt.Errorf("killed: %w", ctx.Err())
	case <-time.After(killGrace):
		return "", fmt.Errorf("%w: process %d does not end after SIGKILL", ctx.Err(), cmd.Process.Pid)
	}
}
