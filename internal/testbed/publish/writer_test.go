package publish

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// writerVariable makes the test program a writer of the file that it names.
const writerVariable = "SHAREVOL_WRITER"

// writer writes numbered lines, each of which reaches the server, until it is stopped.
// It is a process of its own: the tests start others, and who is forked closes what was
// open, which waits for a dead server.
type writer struct {
	path    string
	stdin   io.Closer // it stops when this is closed
	written atomic.Int64
	ended   chan error
}

// runWriter is the process. It says each line once that is written.
func runWriter(path string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND|os.O_SYNC, 0o644)
	if err != nil {
		return err
	}
	var stopped atomic.Bool
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stopped.Store(true)
	}()
	for i := 0; !stopped.Load(); i++ {
		if _, err := fmt.Fprintf(file, "line %d\n", i); err != nil {
			return errors.Join(err, file.Close())
		}
		fmt.Println(i)
		time.Sleep(10 * time.Millisecond)
	}
	return file.Close()
}

func startWriter(t *testing.T, target string) *writer {
	t.Helper()
	self, err := os.Executable()
	check(t, err)
	w := &writer{path: filepath.Join(target, "lines"), ended: make(chan error, 1)}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), writerVariable+"="+w.path)
	var said strings.Builder
	cmd.Stderr = &said
	w.stdin, err = cmd.StdinPipe()
	check(t, err)
	lines, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it has ended, if all is well
	go func() {
		scanner := bufio.NewScanner(lines)
		for scanner.Scan() {
			w.written.Add(1)
		}
		err := errors.Join(scanner.Err(), cmd.Wait())
		if err != nil {
			err = fmt.Errorf("%w: %s", err, said.String())
		}
		w.ended <- err
	}()
	w.progresses(t)
	return w
}

// progresses waits until more is written.
func (w *writer) progresses(t *testing.T) {
	t.Helper()
	before := w.written.Load()
	for deadline := time.Now().Add(2 * time.Minute); w.written.Load() < before+3; time.Sleep(20 * time.Millisecond) {
		select {
		case err := <-w.ended:
			w.ended <- err
			t.Fatalf("the writer of %s ended: %v", w.path, err)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("the writer of %s is stuck at line %d", w.path, before)
		}
	}
}

// blocks waits until nothing is written any more.
func (w *writer) blocks(t *testing.T) {
	t.Helper()
	for range 60 {
		before := w.written.Load()
		time.Sleep(500 * time.Millisecond)
		if w.written.Load() == before {
			return
		}
	}
	t.Errorf("the writer of %s goes on", w.path)
}

// finish ends the writer and sees that the server has every byte.
func (w *writer) finish(t *testing.T, onServer string) {
	t.Helper()
	check(t, w.stdin.Close())
	select {
	case err := <-w.ended:
		if err != nil {
			t.Errorf("the writer of %s: %v", w.path, err)
		}
	case <-time.After(2 * time.Minute):
		t.Fatalf("the writer of %s does not end", w.path)
	}
	var want strings.Builder
	for i := range w.written.Load() {
		fmt.Fprintf(&want, "line %d\n", i)
	}
	got, err := os.ReadFile(filepath.Join(onServer, "lines"))
	check(t, err)
	if string(got) != want.String() {
		t.Errorf("%s: the server has %d bytes, written were %d", w.path, len(got), want.Len())
	}
}
