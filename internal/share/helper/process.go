package helper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"

	"sharevol.dev/sharevol/internal/fault"
	"sharevol.dev/sharevol/internal/fence"
	"sharevol.dev/sharevol/internal/process"
)

const (
	// killGrace is how long a killed helper may take to be gone. The kernel's NFS
	// waits end at once on SIGKILL.
	killGrace = 5 * time.Second
	// endGrace is how long a helper may take to end by itself when it is told to.
	// It waits for nothing then.
	endGrace = 2 * time.Second
	// fenceEvery is how often a helper at work is told the fence. A provisioner that is
	// frozen tells nothing any more, and its helper stops when the last one is reached.
	fenceEvery = time.Second
	// patienceTicks divide Options.Timeout, so that a provisioner that was frozen
	// itself reads the answers that have come before it calls them missing.
	patienceTicks = 4
)

// environment is all that a helper gets of it. It is to be small: it does little but wait.
func environment() []string {
	return append([]string{"GOMAXPROCS=2", "GOGC=50", "GOMEMLIMIT=32MiB"}, fault.Environment()...)
}

// Options of a Process.
type Options struct {
	// Path is where the share root shows.
	Path string
	// NFS says that it must be the root of an NFS mount: a local directory that
	// shows there, because something unmounted the share, is an error then.
	NFS bool
	// Name is the share's name, for those who look at the list of processes.
	Name string
	// Timeout is how long an operation may go without progress, 30 s when zero.
	Timeout time.Duration
	// Fence bounds all steps; nil if there is none.
	Fence *fence.Fence
	// Command is the program and its first arguments, the running program and
	// Argument when empty.
	Command []string
}

// Process is a running helper. Its methods may be called at the same time. They
// return when the helper has answered, when it has ended or was killed, and at the
// latest a moment after Options.Timeout without progress, for which it is killed,
// with whatever else it does, and given 5 s to be gone. When ctx ends, a call still
// waits for its answer: the operation stops between two steps and says what it did.
type Process struct {
	options Options
	child   *process.Process
	stdout  *os.File

	sending sync.Mutex // guards encoder, which writes to stdin
	stdin   *os.File
	encoder *json.Encoder

	failing sync.Once
	failed  chan struct{} // closed when the calls are to return failure
	failure error

	mu     sync.Mutex
	lastID uint64
	calls  map[uint64]*call
}

// call is an operation that has not been answered.
type call struct {
	answer   chan reply // of one
	progress func()
	steps    atomic.Int64
}

// Start starts a helper. It must be opened before all else, and ended at last.
func Start(options Options) (*Process, error) {
	if options.Timeout == 0 {
		options.Timeout = 30 * time.Second
	}
	if len(options.Command) == 0 {
		options.Command = []string{"/proc/self/exe", Argument}
	}
	requests, stdin, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	stdout, replies, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, requests.Close(), stdin.Close())
	}
	child, err := process.Start(&exec.Cmd{
		Path: options.Command[0],
		Args: append([]string{os.Args[0] + " for " + options.Name}, options.Command[1:]...),
		Env:  environment(),
		Dir:  "/",
		// Its messages go where our log goes, its last ones too. A signal for the provisioner
		// from a terminal is not for its helpers, which are no part of its process group.
		Stdin: requests, Stdout: replies, Stderr: os.Stderr,
	})
	_, _ = requests.Close(), replies.Close()
	if err != nil {
		_, _ = stdin.Close(), stdout.Close()
		return nil, fmt.Errorf("start a helper process: %w", err)
	}
	p := &Process{
		options: options, child: child, stdin: stdin, stdout: stdout, encoder: json.NewEncoder(stdin),
		failed: make(chan struct{}), calls: map[uint64]*call{},
	}
	go p.read()
	go p.renew()
	return p, nil
}

// PID returns the id of the process, which another may have once it is gone.
func (p *Process) PID() int { return p.child.PID() }

// Done returns a channel that is closed when the process is gone.
func (p *Process) Done() <-chan struct{} { return p.child.Done() }

// End ends the helper, with SIGKILL if it does not end by itself, and whatever it
// does. It returns an error if the process is not gone when ctx ends, or 5 s after
// it was killed. It may be repeated.
func (p *Process) End(ctx context.Context) error {
	_ = p.stdin.Close() // a second time it is closed already
	if p.child.Ended(ctx, endGrace) {
		return nil
	}
	if err := p.child.End(ctx, killGrace); err != nil {
		return fmt.Errorf("helper %w", err)
	}
	return nil
}

// fail kills the process, waits for it to be gone, though not for ever, and makes
// all calls return reason. It returns when that is so.
func (p *Process) fail(reason error) {
	p.failing.Do(func() {
		err := p.child.End(context.Background(), killGrace)
		switch {
		case err != nil:
			reason = fmt.Errorf("%w; its helper %w", reason, err)
		case errors.Is(reason, ErrGone):
			ended := p.child.Err()
			if ended == nil {
				ended = errors.New("exit status 0")
			}
			reason = fmt.Errorf("%w (%v)", reason, ended)
		}
		p.failure = reason
		close(p.failed)
		_, _ = p.stdin.Close(), p.stdout.Close()
	})
}

// read delivers the replies.
func (p *Process) read() {
	frame := &io.LimitedReader{R: p.stdout}
	decoder := json.NewDecoder(frame)
	for {
		frame.N = maxFrame
		var r reply
		err := decoder.Decode(&r)
		if err == nil {
			err = p.deliver(r)
		}
		switch {
		case err == nil:
			continue
		case frame.N <= 0:
			err = fmt.Errorf("more than %d bytes at once", maxFrame)
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			p.fail(ErrGone)
			return
		}
		p.fail(fmt.Errorf("%w: killed for what it sent: %w", ErrGone, err))
		return
	}
}

func (p *Process) deliver(r reply) error {
	p.mu.Lock()
	c, known := p.calls[r.ID]
	if known && !r.Progress {
		delete(p.calls, r.ID)
	}
	p.mu.Unlock()
	switch {
	case !known && r.Progress: // of a step that ended beside the last one
		return nil
	case !known:
		return fmt.Errorf("reply to %d, which waits for none", r.ID)
	case !r.Progress:
		c.answer <- r
		return nil
	}
	c.steps.Add(1)
	c.progress()
	return nil
}

// renew tells a helper at work the fence.
func (p *Process) renew() {
	if p.options.Fence == nil {
		return
	}
	ticker := time.NewTicker(fenceEvery)
	defer ticker.Stop()
	for {
		select {
		case <-p.failed:
			return
		case <-p.child.Done():
			return
		case <-ticker.C:
		}
		p.mu.Lock()
		busy := len(p.calls) > 0
		p.mu.Unlock()
		if busy {
			p.send(request{})
		}
	}
}

// send sends r with the fence as it is now. What can't be sent fails the process.
func (p *Process) send(r request) {
	err := func() error {
		p.sending.Lock()
		defer p.sending.Unlock()
		if p.options.Fence != nil {
			until := p.options.Fence.Until()
			r.Fence = &until
		}
		// It reads at all times, unless something stopped it.
		if err := p.stdin.SetWriteDeadline(time.Now().Add(p.options.Timeout)); err != nil {
			return err
		}
		return p.encoder.Encode(r)
	}()
	if err != nil {
		p.fail(fmt.Errorf("%w: %w", ErrGone, err))
	}
}
