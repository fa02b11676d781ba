package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sharevol.dev/sharevol/internal/testbed"
)

// stopWithin is what the programs promise for SIGTERM.
const stopWithin = 30 * time.Second

// process is a program that runs beside the bench, with its output in a log file.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{}
}

// startProcess starts one of the programs of the run; its log gets the name too. It runs until stop or until
// ctx ends.
func startProcess(ctx context.Context, program, name string, args ...string) (*process, error) {
	log, err := os.OpenFile(filepath.Join(testbed.GuestLogs, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", name, err)
	}
	defer log.Close() // the child has its own
	cmd := command(ctx, log, filepath.Join(testbed.GuestShare, program), args...)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{cmd: cmd, exited: make(chan struct{})}
	go func() {
		defer close(p.exited)
		_ = cmd.Wait() // how it ended is in ProcessState
	}()
	return p, nil
}

// stop stops the program as kubelet does; a bad end is an error.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop %s: %w", p.cmd.Path, err)
	}
	select {
	case <-p.exited:
	case <-time.After(stopWithin):
		return errors.Join(fmt.Errorf("%s still runs %s after SIGTERM", p.cmd.Path, stopWithin), p.cmd.Cancel())
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("%s ended with status %d", p.cmd.Path, code)
	}
	return nil
}

// command prepares a command in a process group of its own, all of which is killed when ctx ends. Its output
// goes into a file, as a pipe would cost its reader time.
func command(ctx context.Context, output *os.File, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// timed returns how long a command takes, in milliseconds.
func timed(cmd *exec.Cmd) (float64, error) {
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("%s: %w: see its log", strings.Join(cmd.Args, " "), err)
	}
	return milliseconds(time.Since(start)), nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// memory is what a program's processes have of it, in MB.
type memory struct {
	processes int
	resident  float64 // the sum of all processes'
	own       float64 // the same, with pages that processes share divided among them
	anonymous float64 // what of resident is no file's
}

func (m *memory) add(other memory) {
	m.processes += other.processes
	m.resident += other.resident
	m.own += other.own
	m.anonymous += other.anonymous
}

// measureMemory measures a process and all others of the same program.
func measureMemory(pid int) (memory, error) {
	program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return memory{}, fmt.Errorf("measure memory: %w", err)
	}
	executables, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return memory{}, err
	}
	var sum memory
	for _, executable := range executables {
		if other, err := os.Readlink(executable); err != nil || other != program {
			continue // it is another program, or has ended
		}
		m, err := memoryOf(filepath.Dir(executable))
		if err != nil {
			return memory{}, err
		}
		sum.add(m)
	}
	return sum, nil
}

// memoryOf reads what the kernel says of a process in its folder in /proc.
func memoryOf(dir string) (memory, error) {
	data, err := os.ReadFile(filepath.Join(dir, "smaps_rollup"))
	if err != nil {
		return memory{}, fmt.Errorf("measure memory: %w", err)
	}
	m := memory{processes: 1}
	fields := map[string]*float64{"Rss:": &m.resident, "Pss:": &m.own, "Anonymous:": &m.anonymous}
	for line := range strings.Lines(string(data)) {
		words := strings.Fields(line) // NAME: NUMBER kB
		if len(words) != 3 || fields[words[0]] == nil {
			continue
		}
		kb, err := strconv.ParseFloat(words[1], 64)
		if err != nil {
			return memory{}, fmt.Errorf("measure memory: %s: %w", line, err)
		}
		*fields[words[0]] = kb * 1024 / mega
	}
	return m, nil
}
