package publish

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sharevol.dev/sharevol/internal/testbed/guest"
)

var servers atomic.Int32

// newServer starts one more NFS server for the time of the test.
func newServer(t *testing.T) *guest.NFSServer {
	t.Helper()
	server, err := guest.StartNFSServer(t.Context(), int(servers.Add(1)))
	check(t, err)
	t.Cleanup(func() {
		if err := server.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return server
}

// mountsBelow returns what is mounted below a folder, a mount point for each mount.
func mountsBelow(t *testing.T, dir string) []string {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	check(t, err)
	var found []string
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); strings.HasPrefix(fields[4], dir+"/") {
			found = append(found, fields[4])
		}
	}
	return found
}

// mountID returns the kernel's number of the one mount on a target.
func mountID(t *testing.T, target string) string {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	check(t, err)
	var found []string
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); fields[4] == target {
			found = append(found, fields[0])
		}
	}
	if len(found) != 1 {
		t.Errorf("%d mounts on %s", len(found), target)
		return ""
	}
	return found[0]
}

// commands returns the command lines of the mount and umount processes with a word in
// them.
func commands(t *testing.T, word string) []string {
	t.Helper()
	lines, err := guest.Commands("mount", word)
	check(t, err)
	return slices.DeleteFunc(lines, func(line string) bool { return strings.Contains(line, program) })
}

// stuck returns the user processes that sleep where no signal reaches them.
func stuck(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	check(t, err)
	var found []string
	for _, file := range files {
		stat, _ := os.ReadFile(file) // it may have ended
		_, rest, _ := strings.Cut(string(stat), ") ")
		if _, err := os.Readlink(filepath.Join(filepath.Dir(file), "exe")); err == nil && strings.HasPrefix(rest, "D") {
			found = append(found, string(stat))
		}
	}
	return found
}

// took runs a call that must return within a time, and returns its error.
func took(t *testing.T, what string, within time.Duration, call func() error) error {
	t.Helper()
	start := time.Now()
	err := call()
	spent := time.Since(start)
	t.Logf("%s: %s after %s: %v", uptime(), what, spent.Round(10*time.Millisecond), err)
	if spent > within {
		t.Errorf("%s took %s, which is more than %s", what, spent, within)
	}
	return err
}

// retried repeats a call as kubelet does, until it succeeds.
func retried(t *testing.T, what string, within time.Duration, call func() error) {
	t.Helper()
	start := time.Now()
	for {
		err := call()
		if err == nil {
			t.Logf("%s: %s succeeded after %s", uptime(), what, time.Since(start).Round(10*time.Millisecond))
			return
		}
		if time.Since(start) > within {
			t.Errorf("%s fails still after %s: %v", what, within, err)
			return
		}
		time.Sleep(500 * time.Millisecond)
	}
}

// notFinal fails the test if an error would make kubelet forget the mount.
func notFinal(t *testing.T, err error) {
	t.Helper()
	switch code := status.Code(err); code {
	case codes.DeadlineExceeded, codes.Unavailable, codes.Aborted:
	default:
		t.Errorf("code %s: %v", code, err)
	}
}

// uptime is the machine's, in seconds: what all figures of a log are relative to.
func uptime() string {
	data, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return err.Error()
	}
	return strings.Fields(string(data))[0] + "s"
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
