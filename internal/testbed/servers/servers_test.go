package servers

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/testbed/guest"
)

// The tests of the first group take the machine for themselves: they measure. Those
// of the second run at the same time, each with servers of its own, and must not
// disturb each other either.
func TestServers(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	cluster, err := guest.StartControlPlane(ctx, func(format string, args ...any) { t.Logf("%s: %s", uptime(), fmt.Sprintf(format, args...)) })
	check(t, err)
	w, err := newWorld(ctx, cluster)
	check(t, err)
	defer func() {
		// The last things said: whether all is still running, and the machine's memory enough.
		if err := cluster.Alive(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the kernel complains:\n%s", kernelErrors())
		}
		memory, err := os.ReadFile("/proc/meminfo")
		t.Logf("%.84s %v", memory, err)
	}()
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"Check", w.testCheck},
		{"StoppedServer", w.testStoppedServer},
		{"LinkDown", w.testLinkDown},
	} {
		t.Run(test.name, test.run)
		t.Logf("%s: %s", uptime(), test.name)
	}
	t.Run("Together", w.testTogether)
	t.Logf("%s: Together", uptime())
}

func (w *world) testTogether(t *testing.T) {
	p := w.provisioner(t)
	t.Run("Each", func(t *testing.T) {
		for _, test := range []struct {
			name string
			run  func(*testing.T)
		}{
			{"CutForLong", w.testCutForLong},
			{"DirectoryWork", w.testDirectoryWork},
			{"HungMount", w.testHungMount},
			{"StaleHandles", w.testStaleHandles},
			{"SlowServer", w.testSlowServer},
			{"FullFileSystem", w.testFullFileSystem},
			{"ReadOnlyExport", w.testReadOnlyExport},
			{"Squashed", w.testSquashed},
			{"SquashedOwner", w.testSquashedOwner},
			{"SquashedRemoval", w.testSquashedRemoval},
		} {
			t.Run(test.name, func(t *testing.T) {
				t.Parallel()
				test.run(t)
				t.Logf("%s: done", uptime())
			})
		}
	})
	p.stop(t)
}

// uptime is the machine's, in seconds: what all figures of a log are relative to.
func uptime() string {
	data, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return err.Error()
	}
	return strings.Fields(string(data))[0] + "s"
}

// kernelErrors are the serious lines of the kernel's log: it says there when it has
// to end a process.
func kernelErrors() string {
	log := make([]byte, 256<<10)
	n, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, log)
	if err != nil {
		return err.Error()
	}
	var errors strings.Builder
	for line := range strings.Lines(string(log[:n])) {
		if line >= "<0>" && line < "<4>" {
			errors.WriteString(line)
		}
	}
	return errors.String()
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
