// Package process runs child processes that can be ended with all that they have started.
// Each leads a process group of its own. Nothing here waits without an end, and no signal
// ever reaches another program's process that got the same number.
package process

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/processors"
)

// ErrAlive says that a process did not end after SIGKILL: the kernel has it wait for
// something, such as a device or a server.
var ErrAlive = errors.New("does not end after SIGKILL")

// Process is a process group whose leader Start has started. Its methods may be called
// concurrently.
type Process struct {
	leader *exec.Cmd
	done   chan struct{}
	err    error // how the leader ended; read after done only

	mu     sync.Mutex
	reaped bool // the kernel may have given the number to another group
}

// Start starts cmd in a process group of its own. Output that cmd does not write to an
// *os.File would be copied until all of the group's descendants have closed it: give it a file.
func Start(cmd *exec.Cmd) (*Process, error) {
	if err := Check(); err != nil {
		return nil, err
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	started := processors.Starting()
	err := cmd.Start()
	started()
	if err != nil {
		return nil, err
	}
	p := &Process{leader: cmd, done: make(chan struct{})}
	go p.wait()
	return p, nil
}

// Check returns an error where this kernel does not let a program wait for the children
// of its children.
func Check() error { return becomeSubreaper() }

// becomeSubreaper makes this process the parent of its orphaned descendants, as process 1 is.
var becomeSubreaper = sync.OnceValue(func() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl(PR_SET_CHILD_SUBREAPER): %w", err)
	}
	return nil
})

// PID is the number of the leader and of its group. Another process may have it once Done
// is closed.
func (p *Process) PID() int { return p.leader.Process.Pid }

// Done returns a channel that is closed when no process of the group is left. What has
// left the group, as a daemon does, is not waited for.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err says how the leader ended: nil, or an *exec.ExitError. It waits for Done.
func (p *Process) Err() error {
	<-p.done
	return p.err
}

// Ended waits until Done is closed, for as long as grace, and until ctx ends. It reports
// whether Done is closed.
func (p *Process) Ended(ctx context.Context, grace time.Duration) bool {
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	select {
	case <-p.done: // both were ready
		return true
	default:
		return false
	}
}

// End kills the group and waits for its end, for as long as grace and until ctx ends. The
// error matches ErrAlive if some of it is left then.
func (p *Process) End(ctx context.Context, grace time.Duration) error {
	err := p.kill(syscall.Kill)
	if p.Ended(ctx, grace) {
		return nil
	}
	return errors.Join(fmt.Errorf("process group %d %w", p.PID(), ErrAlive), err)
}

// kill kills the group with send, unless it has ended.
func (p *Process) kill(send func(pid int, signal syscall.Signal) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped {
		return nil
	}
	return send(-p.PID(), syscall.SIGKILL)
}

// wait waits until no process of the group is left. Its members become our children when
// their parent dies, and nothing else would wait for them: in a container this program is
// process 1.
func (p *Process) wait() {
	defer close(p.done)
	for errors.Is(unix.Waitid(unix.P_PID, p.PID(), nil, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
	}
	// As long as the leader is not reaped, nothing else gets its number.
	for pause := time.Millisecond; p.hasMembers(); pause = min(2*pause, 50*time.Millisecond) {
		time.Sleep(pause)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reaped = true
	p.err = p.leader.Wait()
	for {
		// Only zombies are left, which leave no group. ECHILD: none is.
		pid, err := unix.Wait4(-p.PID(), nil, unix.WNOHANG, nil)
		if !errors.Is(err, unix.EINTR) && (err != nil || pid == 0) {
			return
		}
	}
}

// hasMembers reports whether any process of the group has not ended yet. Without WEXITED
// the kernel does not count those that have: if there is nothing else, that is ECHILD.
func (p *Process) hasMembers() bool {
	err := unix.Waitid(unix.P_PGID, p.PID(), nil, unix.WSTOPPED|unix.WNOHANG|unix.WNOWAIT, nil)
	return !errors.Is(err, unix.ECHILD)
}
