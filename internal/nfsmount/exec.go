package nfsmount

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/processors"
)

// killGrace is how long a killed command may take to be gone. The kernel's NFS
// waits end on SIGKILL; whatever does not is left to itself, so that the caller
// returns.
const killGrace = 5 * time.Second

// maxOutput is more than mount(8) ever says.
const maxOutput = 16 << 10

// job is what a command does, and where. Of each there is one command at a time, at most.
type job struct{ verb, target string }

// runner runs commands. Its methods may be called at the same time for different
// jobs.
type runner struct {
	kill  func(pid int, signal syscall.Signal) error
	grace time.Duration

	mu      sync.Mutex
	unended map[job]int // the process groups that were killed and have not ended
}

func newRunner() *runner {
	return &runner{kill: syscall.Kill, grace: killGrace, unended: map[job]int{}}
}

// check returns an error while a killed command of a job is still there: what it
// was doing may still take effect.
func (r *runner) check(what job) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if group, found := r.unended[what]; found {
		return fmt.Errorf("%w: an earlier %s on %s (process group %d) was killed: %w", ErrUnended, what.verb, what.target, group, context.DeadlineExceeded)
	}
	return nil
}

// run runs a command in a process group of its own and returns what it printed,
// trimmed. The command inherits the file inherited, if any. When ctx ends the whole
// group is killed, helpers of mount(8) included, and the error matches ctx.Err(). It
// returns once no process of the group is left; if that takes longer than grace, check
// tells of it until it is so.
func (r *runner) run(ctx context.Context, grace time.Duration, what job, inherited *os.File, name string, args ...string) (string, error) {
	if err := errors.Join(ctx.Err(), adopt(), r.check(what)); err != nil {
		return "", err
	}
	output, err := memoryFile() // a pipe would stay open as long as a grandchild has it
	if err != nil {
		return "", err
	}
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = output, output
	cmd.Env = append(cmd.Environ(), "LC_ALL=C")
	if inherited != nil {
		cmd.ExtraFiles = []*os.File{inherited}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := start(cmd); err != nil {
		return "", errors.Join(err, output.Close())
	}
	g := &group{leader: cmd}
	ended := make(chan struct{})
	var said string
	var failed error
	go func() {
		defer close(ended)
		failed = g.wait()
		said = printed(output)
	}()
	select {
	case <-ended:
		return said, failed
	case <-ctx.Done():
	}
	select {
	case <-ended: // both were ready
		return said, failed
	default:
	}
	if err := g.kill(r.kill); err != nil {
		r.remember(what, g.number(), ended)
		return "", errors.Join(ctx.Err(), fmt.Errorf("kill %s: %w", name, err))
	}
	select {
	case <-ended:
		return said, fmt.Errorf("killed: %w", ctx.Err())
	case <-time.After(grace):
		r.remember(what, g.number(), ended)
		return "", fmt.Errorf("%w: process group %d does not end after SIGKILL", ctx.Err(), g.number())
	}
}

// remember has check tell of a group until it has ended.
func (r *runner) remember(what job, group int, ended <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unended[what] = group
	go func() {
		<-ended
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.unended, what)
	}()
}

// adopt makes this process the parent of its orphaned descendants, as process 1 is.
var adopt = sync.OnceValue(func() error {
	return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
})

func memoryFile() (*os.File, error) {
	fd, err := unix.MemfdCreate("output", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	return os.NewFile(uintptr(fd), "output"), nil
}

// printed returns what was written to a file, and closes it.
func printed(output *os.File) string {
	defer func() { _ = output.Close() }() // it was only in memory
	data, err := io.ReadAll(io.NewSectionReader(output, 0, maxOutput))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(data))
}

func start(cmd *exec.Cmd) error {
	defer processors.Starting()()
	return cmd.Start()
}
