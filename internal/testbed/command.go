package testbed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// outputTail is how much of a failed command's output an error carries.
const outputTail = 4000

// command prepares a child process in a process group of its own, which is killed as a whole when ctx
// ends: go and mmdebstrap have children too.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// runGuarded runs cmd. Nothing of it outlives this process, however that ends.
func runGuarded(cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	return waitGuarded(cmd)
}

// waitGuarded is runGuarded of what was just started.
func waitGuarded(cmd *exec.Cmd) error {
	dismiss, err := guard(cmd.Process.Pid)
	if err != nil {
		return errors.Join(err, cmd.Cancel(), cmd.Wait())
	}
	defer dismiss()
	return cmd.Wait()
}

// guard starts a process that kills a process group as soon as this process has ended without having
// dismissed it, in whatever way: a child in a group of its own would go on.
func guard(group int) (dismiss func(), err error) {
	cmd := exec.Command("sh", "-c", `read -r _; kill -s KILL -- "-$0"`, strconv.Itoa(group))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is not for it
	held, err := cmd.StdinPipe()                          // which ends with this process
	if err != nil {
		return nil, fmt.Errorf("guard a child: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("guard a child: %w", err)
	}
	return func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // reports the kill
		_ = held.Close()
	}, nil
}

// run runs cmd and returns its output; the error of a failed one carries the end of what it said.
func run(ctx context.Context, cmd *exec.Cmd) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := runGuarded(cmd); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		said := strings.TrimSpace(stdout.String() + stderr.String())
		if len(said) > outputTail {
			said = "... " + said[len(said)-outputTail:]
		}
		return nil, fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, said)
	}
	return stdout.Bytes(), nil
}
