package mount

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/process"
)

// killGrace is how long a killed command may take to be gone. The kernel's waits for NFS
// end on SIGKILL; a command that does not end is left to itself, so that the caller returns.
const killGrace = 5 * time.Second

// maxOutput is more than mount(8) ever prints.
const maxOutput = 16 << 10

// job is what a command does, and where. Of each there is one command at a time, at most.
type job struct{ verb, target string }

// runner runs commands. Its methods may be called at the same time for different
// jobs.
type runner struct {
	// end kills what runs, and waits for its end as long as grace. Tests have it fail.
	end   func(p *process.Process, grace time.Duration) error
	grace time.Duration

	mu     sync.Mutex
	killed map[job]int // the process groups that were killed and have not ended
}

func newRunner() *runner {
	return &runner{
		end: func(p *process.Process, grace time.Duration) error {
			return p.End(context.Background(), grace) // the caller's context has ended
		},
		grace: killGrace, killed: map[job]int{},
	}
}

// check returns an error while a killed command of a job is still there: what it
// was doing may still take effect.
func (r *runner) check(what job) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if group, found := r.killed[what]; found {
		return fmt.Errorf("%w: %s on %s (process group %d) was killed at its deadline: %w", ErrPending, what.verb, what.target, group, context.DeadlineExceeded)
	}
	return nil
}

// run runs a command in a process group of its own and returns what it printed,
// trimmed. The command inherits the file inherited, if any. When ctx ends the whole
// group is killed, helpers of mount(8) included, and the error matches ctx.Err(). It
// returns once no process of the group is left; if that takes longer than grace, check
// returns an error until it is so.
func (r *runner) run(ctx context.Context, grace time.Duration, what job, inherited *os.File, name string, args ...string) (string, error) {
	if err := errors.Join(ctx.Err(), r.check(what)); err != nil {
		return "", err
	}
	output, err := memoryFile() // a pipe would stay open as long as a grandchild has it
	if err != nil {
		return "", err
	}
	defer func() { _ = output.Close() }() // it was only in memory
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = output, output
	cmd.Env = append(cmd.Environ(), "LC_ALL=C")
	if inherited != nil {
		cmd.ExtraFiles = []*os.File{inherited}
	}
	p, err := process.Start(cmd)
	if err != nil {
		return "", err
	}
	select {
	case <-p.Done():
		return printed(output), p.Err()
	case <-ctx.Done():
	}
	select {
	case <-p.Done(): // both were ready
		return printed(output), p.Err()
	default:
	}
	if err := r.end(p, grace); err != nil {
		r.trackKilled(what, p)
		return "", fmt.Errorf("%s: %w: %w", name, ctx.Err(), err)
	}
	return printed(output), fmt.Errorf("killed: %w", ctx.Err())
}

// trackKilled has check return an error until a killed command has ended.
func (r *runner) trackKilled(what job, p *process.Process) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.killed[what] = p.PID()
	go func() {
		<-p.Done()
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.killed, what)
	}()
}

func memoryFile() (*os.File, error) {
	fd, err := unix.MemfdCreate("output", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	return os.NewFile(uintptr(fd), "output"), nil
}

// printed returns what was written to a file.
func printed(output *os.File) string {
	data, err := io.ReadAll(io.NewSectionReader(output, 0, maxOutput))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(data))
}
