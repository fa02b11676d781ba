package fakehelper

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// settling is how long what a test has ended may take to be gone.
const settling = 20 * time.Second

// CheckLeaks fails t if it leaves a goroutine or a child process. It is to be
// called first.
func CheckLeaks(t testing.TB) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for deadline := time.Now().Add(settling); runtime.NumGoroutine() > before || Children(t) > 0; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				stacks := make([]byte, 1<<20)
				t.Fatalf("left behind: %d child processes, or a goroutine:\n%s", Children(t), stacks[:runtime.Stack(stacks, true)])
			}
		}
	})
}

// Children returns how many child processes there are, those too that have ended
// and were not reaped.
func Children(t testing.TB) int {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil || len(tasks) == 0 {
		t.Fatalf("this kernel does not list child processes: %v", err)
	}
	n := 0
	for _, task := range tasks {
		if content, err := os.ReadFile(task); err == nil { // else the thread has ended
			n += len(strings.Fields(string(content)))
		}
	}
	return n
}

// Gone reports whether a process has ended, even if nobody has reaped it.
func Gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}
