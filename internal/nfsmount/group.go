package nfsmount

import (
	"errors"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// group is the process group of a command, which leads it.
type group struct {
	leader *exec.Cmd

	mu     sync.Mutex
	reaped bool // the number may be another group's
}

// number is the group's, and its leader's as a process.
func (g *group) number() int { return g.leader.Process.Pid }

// wait waits until no process of the group is left, and returns how its leader has
// ended. What leaves the group, as a daemon does, is not waited for. The members
// become our children when their parent dies (see adopt), and nobody else would wait
// for them: in a container this program is process 1.
func (g *group) wait() error {
	for errors.Is(unix.Waitid(unix.P_PID, g.number(), nil, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
	}
	// As long as the leader is not reaped, nothing else gets the number.
	for pause := time.Millisecond; g.lives(); pause = min(2*pause, 50*time.Millisecond) {
		time.Sleep(pause)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reaped = true
	err := g.leader.Wait()
	for {
		// Only zombies are left, which leave no group. ECHILD: none is.
		pid, waitErr := unix.Wait4(-g.number(), nil, unix.WNOHANG, nil)
		if !errors.Is(waitErr, unix.EINTR) && (waitErr != nil || pid == 0) {
			return err
		}
	}
}

// lives reports whether any process of the group has not ended yet. Without WEXITED the
// kernel does not count those that have: if there is nothing else, that is ECHILD.
func (g *group) lives() bool {
	err := unix.Waitid(unix.P_PGID, g.number(), nil, unix.WSTOPPED|unix.WNOHANG|unix.WNOWAIT, nil)
	return !errors.Is(err, unix.ECHILD)
}

// kill kills the group with send, unless it has ended.
func (g *group) kill(send func(pid int, signal syscall.Signal) error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.reaped {
		return nil
	}
	return send(-g.number(), syscall.SIGKILL)
}
