package election

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sharevol.dev/sharevol/internal/election/fakelease"
	"sharevol.dev/sharevol/internal/fence"
)

// childEnv has the URL of the server that this program, run again, takes part at.
const childEnv = "SHAREVOL_TEST_ELECTION"

func TestMain(m *testing.M) {
	if url := os.Getenv(childEnv); url != "" {
		os.Exit(child(url))
	}
	os.Exit(m.Run())
}

// child leads as the provisioner does: it writes what it may, with the time, and
// ends when the lease is lost.
func child(url string) int {
	held := &fence.Fence{}
	err := Run(context.Background(), Options{
		Client:    fakelease.Client(fatal{}, url, "child"),
		Namespace: fakelease.Namespace, Name: fakelease.Name, Identity: "child",
		Fence: held, LeaseDuration: 2 * time.Second,
	}, func(ctx context.Context) error {
		for {
			over := ctx.Err() != nil // one more is tried then
			now := fence.BootTime()
			if err := held.Check(); err != nil {
				fmt.Println("refused:", err)
			} else {
				fmt.Println("wrote", int64(now))
			}
			if over {
				return nil
			}
			time.Sleep(2 * time.Millisecond)
		}
	})
	fmt.Println("ended:", err)
	if errors.Is(err, fence.ErrLost) {
		return 3
	}
	return 1
}

// fatal is a testing.TB for a program that is no test.
type fatal struct{ testing.TB }

func (fatal) Helper() {}

func (fatal) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

// leader is the child as the test sees it.
type leader struct {
	*exec.Cmd
	exited chan error

	mu      sync.Mutex
	latest  time.Duration // write
	refused int
	end     string
}

func startChild(t *testing.T, url string) *leader {
	t.Helper()
	l := &leader{Cmd: exec.Command(os.Args[0], "-test.run=^$"), exited: make(chan error, 1)}
	l.Env = append(os.Environ(), childEnv+"="+url)
	l.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := l.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			l.read(lines.Text())
		}
		l.exited <- l.Wait()
	}()
	t.Cleanup(func() {
		_ = l.Process.Kill()
		await(t, done)
	})
	within(t, "the child leads", func() bool { return l.wrote() != 0 })
	return l
}

func (l *leader) read(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch what, rest, _ := strings.Cut(line, " "); what {
	case "wrote":
		at, _ := strconv.ParseInt(rest, 10, 64)
		l.latest = time.Duration(at)
	case "refused:":
		l.refused++
	case "ended:":
		l.end = rest
	}
}

func (l *leader) wrote() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.latest
}

// Frozen longer than its lease lasts, and awake again while another leads: nothing
// is written from the first instant on, and the program ends.
func TestAFrozenLeader(t *testing.T) {
	t.Parallel()
	server := fakelease.New(t)
	frozen := startChild(t, server.URL)
	b := start(t, server, "b", Options{}, nothing)
	within(t, "the lease is renewed", func() bool { return server.Version() > 3 })
	if err := frozen.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	at := fence.BootTime()
	await(t, b.leading)
	within(t, "b writes", func() bool { first, _ := b.writes(); return first != 0 })
	first, _ := b.writes()
	t.Logf("b writes %v after the freeze", first-at)

	if err := frozen.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	err := await(t, frozen.exited)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("the frozen leader ended with %v: %s", err, frozen.end)
	}
	if frozen.latest >= first || frozen.refused == 0 {
		t.Errorf("b wrote at %v, the frozen one at %v; %d of its writes were refused", first, frozen.latest, frozen.refused)
	}
	if b.fence.Check() != nil || server.Holder() != "b" {
		t.Errorf("the one that woke took the lease back: held by %q", server.Holder())
	}
}

func TestAKilledLeader(t *testing.T) {
	t.Parallel()
	server := fakelease.New(t)
	killed := startChild(t, server.URL)
	b := start(t, server, "b", Options{}, nothing)
	within(t, "the lease is renewed", func() bool { return server.Version() > 3 })
	if err := killed.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	at := fence.BootTime()
	await(t, b.leading)
	within(t, "b writes", func() bool { first, _ := b.writes(); return first != 0 })
	first, _ := b.writes()
	t.Logf("b writes %v after the kill", first-at)
	if last := killed.wrote(); first <= last {
		t.Errorf("b wrote at %v, the killed one at %v", first, last)
	}
}
