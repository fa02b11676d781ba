package controlplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sharevol.dev/sharevol/internal/testbed"
)

// stopWithin is how long a program may take to stop before it is killed, and to be gone after that.
const stopWithin = 15 * time.Second

// ticksPerSecond is USER_HZ, in which Linux counts processor time for programs.
const ticksPerSecond = 100

// process is a program that runs beside this one, with its output in a log file.
type process struct {
	name   string
	cmd    *exec.Cmd
	exited chan struct{} // closed when it has ended
}

// launch starts a program, which runs until it is stopped or ctx ends. It has a process group of its own,
// which does not outlive this process, however that ends.
func launch(ctx context.Context, name, logPath string, env []string, program string, args ...string) (*process, error) {
	logFile, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", name, err)
	}
	defer logFile.Close() // the child has its own
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	dismiss, err := testbed.Guard(cmd.Process.Pid)
	if err != nil {
		return nil, errors.Join(err, cmd.Cancel(), cmd.Wait())
	}
	p := &process{name: name, cmd: cmd, exited: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // how it ended is in ProcessState
		dismiss()
		close(p.exited)
	}()
	return p, nil
}

// alive returns an error that says where to look when the program has ended by itself.
func (p *process) alive() error {
	select {
	case <-p.exited:
		return fmt.Errorf("%s ended (%s): see its log", p.name, p.cmd.ProcessState)
	default:
		return nil
	}
}

// used is the processor time that the program has taken so far.
func (p *process) used() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("see what %s takes: %w", p.name, err)
	}
	// after the name, in parentheses, which may hold anything: see proc_pid_stat(5)
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("see what %s takes: read %q", p.name, stat)
	}
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("see what %s takes: %w", p.name, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond, nil
}

// stop ends the program in an orderly way if it can, and by force if it can't.
func (p *process) stop() error {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		select {
		case <-p.exited: // its number may be somebody else's by now
			return nil
		default:
		}
		if err := syscall.Kill(-p.cmd.Process.Pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop %s: %w", p.name, err)
		}
		select {
		case <-p.exited:
			return nil
		case <-time.After(stopWithin):
		}
	}
	return fmt.Errorf("stop %s: it outlives SIGKILL", p.name)
}

// signal sends the program itself a signal, not its group.
func (p *process) signal(signal syscall.Signal) error {
	if err := p.alive(); err != nil {
		return err
	}
	if err := p.cmd.Process.Signal(signal); err != nil {
		return fmt.Errorf("send %s the signal %s: %w", p.name, signal, err)
	}
	return nil
}
