package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sharevol.dev/sharevol/internal/testbed/guest"
)

const (
	readyWithin = time.Minute      // of a start, with much else to do for the processor
	helpersGone = 10 * time.Second // after the program that they help has ended
	httpTimeout = 5 * time.Second
)

// ProvisionerOptions say how to run a provisioner.
type ProvisionerOptions struct {
	Name    string   // of its log file
	Program string   // as BuildProvisioner made it
	Dir     string   // an existing folder on the file system of Program
	Logs    string   // an existing folder
	Args    []string // besides --http-address
	Env     []string // besides this process's
}

// Provisioner is sharevol-provisioner as a process that can be started, hurt, ended, and started again. Its
// methods are for one goroutine at a time, but for Get and Helpers.
type Provisioner struct {
	options ProvisionerOptions
	program string // a name of its own, by which its processes are found
	port    *port
	process *process
}

// NewProvisioner prepares a provisioner; nothing runs yet. Close gives back what it holds.
func NewProvisioner(options ProvisionerOptions) (*Provisioner, error) {
	dir := filepath.Join(options.Dir, "program-"+options.Name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make a folder for %s: %w", options.Name, err)
	}
	program := filepath.Join(dir, "sharevol-provisioner")
	if err := os.Link(options.Program, program); err != nil {
		return nil, fmt.Errorf("name the program of %s: %w", options.Name, err)
	}
	port, err := reservePort()
	if err != nil {
		return nil, err
	}
	return &Provisioner{options: options, program: program, port: port}, nil
}

// Name is the one it was given.
func (p *Provisioner) Name() string { return p.options.Name }

// Log is the path of its log file, to which each start appends.
func (p *Provisioner) Log() string { return filepath.Join(p.options.Logs, p.options.Name+".log") }

// Address is that of its HTTP server.
func (p *Provisioner) Address() string { return p.port.address() }

// PID is the number of the process that was started last.
func (p *Provisioner) PID() int { return p.process.cmd.Process.Pid }

// Used is the processor time that the process that was started last has taken so far, its helpers not counted.
func (p *Provisioner) Used() (time.Duration, error) { return p.process.used() }

// Start starts it, with more environment than Options say if wanted. It runs until it is ended or ctx ends.
func (p *Provisioner) Start(ctx context.Context, env ...string) error {
	if p.process != nil && p.process.alive() == nil {
		return fmt.Errorf("start %s: it runs", p.options.Name)
	}
	args := append([]string{"--http-address=" + p.port.address()}, p.options.Args...)
	process, err := launch(ctx, p.options.Name, p.Log(), slices.Concat(p.options.Env, env), p.program, args...)
	if err == nil {
		p.process = process
	}
	return err
}

// Ready waits until /readyz says so, a minute at most.
func (p *Provisioner) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	return guest.WaitFor(ctx, p.options.Name+" to be ready", poll, func(ctx context.Context) (bool, string, error) {
		status, body, err := p.Get(ctx, "/readyz")
		return err == nil && status == http.StatusOK, fmt.Sprintf("%d %s %v", status, body, err), p.process.alive()
	})
}

// Get asks its HTTP server.
func (p *Provisioner) Get(ctx context.Context, path string) (status int, body string, err error) {
	ctx, cancel := context.WithTimeout(ctx, httpTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.port.address()+path, nil)
	if err != nil {
		return 0, "", err
	}
	request.Close = true // a kept connection would be one to a process that was ended
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	return response.StatusCode, string(data), err
}

// Exited is closed when the process that was started last has ended, its helpers perhaps not.
func (p *Provisioner) Exited() <-chan struct{} { return p.process.exited }

// State is how the process that was started last has ended; nil while it runs.
func (p *Provisioner) State() *os.ProcessState {
	if p.process.alive() == nil {
		return nil
	}
	return p.process.cmd.ProcessState
}

// Killed reports whether the process that was started last was ended by SIGKILL.
func (p *Provisioner) Killed() bool {
	state := p.State()
	if state == nil {
		return false
	}
	status, ok := state.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// Freeze stops the process from doing anything, but not its helpers, until Thaw.
func (p *Provisioner) Freeze() error { return p.process.signal(syscall.SIGSTOP) }

// Thaw lets a frozen process go on.
func (p *Provisioner) Thaw() error { return p.process.signal(syscall.SIGCONT) }

// Kill kills the process and nothing else: its helpers must end by themselves, which Gone waits for.
func (p *Provisioner) Kill() error { return p.kill(false) }

// KillAll kills the process and its helpers all at once, as the end of a container does.
func (p *Provisioner) KillAll() error { return p.kill(true) }

func (p *Provisioner) kill(helpers bool) error {
	if err := p.process.signal(syscall.SIGKILL); err != nil {
		return err
	}
	var all []error
	if helpers {
		_, err := p.killHelpers()
		all = append(all, err)
	}
	select {
	case <-p.process.exited:
	case <-time.After(stopWithin):
		all = append(all, fmt.Errorf("%s outlives SIGKILL", p.options.Name))
	}
	return errors.Join(all...)
}

// Stop ends it as kubelet does, by SIGTERM, and returns how it ended.
func (p *Provisioner) Stop(ctx context.Context) (*os.ProcessState, error) {
	if err := p.process.signal(syscall.SIGTERM); err != nil {
		return nil, err
	}
	select {
	case <-p.process.exited:
		return p.State(), p.Gone(ctx)
	case <-time.After(stopWithin):
		return nil, fmt.Errorf("%s does not stop", p.options.Name)
	}
}

// Helpers returns the numbers of its processes other than that which was started last: its helpers, and
// those of earlier starts.
func (p *Provisioner) Helpers() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("look for helpers: %w", err)
	}
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || p.process != nil && pid == p.process.cmd.Process.Pid {
			continue
		}
		// unreadable for other users' processes and for those that have ended
		if exe, err := os.Readlink(filepath.Join("/proc", entry.Name(), "exe")); err == nil && strings.TrimSuffix(exe, " (deleted)") == p.program {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func (p *Provisioner) killHelpers() (killed int, err error) {
	pids, err := p.Helpers()
	for _, pid := range pids {
		if syscall.Kill(pid, syscall.SIGKILL) == nil {
			killed++
		}
	}
	return killed, err
}

// Gone waits until no helper is left of a provisioner that has ended, and says which are there after 10 s.
func (p *Provisioner) Gone(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, helpersGone)
	defer cancel()
	return guest.WaitFor(ctx, p.options.Name+"'s helpers to end", poll/5, func(context.Context) (bool, string, error) {
		pids, err := p.Helpers()
		return len(pids) == 0, fmt.Sprintf("processes %d", pids), err
	})
}

// Close ends everything of it by force and gives back its port. It may be repeated.
func (p *Provisioner) Close() error {
	var all []error
	if p.process != nil && p.process.alive() == nil {
		if err := p.KillAll(); !errors.Is(err, os.ErrProcessDone) { // it may end at this moment
			all = append(all, err)
		}
	}
	_, err := p.killHelpers()
	if p.port != nil {
		p.port.close()
		p.port = nil
	}
	return errors.Join(append(all, err)...)
}
