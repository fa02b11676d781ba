package mount

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// asMounter, in the environment, makes the test binary check what a table says of mounts
// that it makes in the folder given, in a mount namespace of its own.
const asMounter = "MOUNT_TEST_CHANGES_IN"

// mayNotMount is its exit status where a security module forbids mounts, even in namespaces.
const mayNotMount = 77

// The kernel tells of each change of the table, once, and of nothing else.
func TestTableTellsOfChanges(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asMounter+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:   syscall.CLONE_NEWUSER,
		Unshareflags: syscall.CLONE_NEWNS, // with which Go keeps the machine's own mounts out, too
		UidMappings:  []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings:  []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	output, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) || errors.As(err, &exit) && exit.ExitCode() == mayNotMount {
		t.Skipf("no namespaces with mounts here: %v: %s", err, output)
	}
	if err != nil {
		t.Errorf("%v: %s", err, output)
	}
}

// changes is TestTableTellsOfChanges in the namespace.
func changes(dir string) error {
	table, err := openTable("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer table.close()
	for _, step := range []struct {
		name  string
		do    func() error
		shows int // mounts on dir afterwards
	}{
		{"nothing", func() error { return nil }, 0},
		{"mount", func() error { return unix.Mount("first", dir, "tmpfs", 0, "") }, 1},
		{"mount on top", func() error { return unix.Mount("second", dir, "tmpfs", 0, "") }, 2},
		{"look at it", func() error { _, err := os.ReadDir(dir); return err }, 2},
		{"unmount", func() error { return unix.Unmount(dir, 0) }, 1},
		{"detach", func() error { return unix.Unmount(dir, unix.MNT_DETACH) }, 0},
	} {
		before, err := table.read()
		if err != nil {
			return err
		}
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		changed, err := table.changed()
		if err != nil {
			return err
		}
		after, err := table.read()
		if err != nil {
			return err
		}
		if !bytes.Equal(before, after) != changed {
			return fmt.Errorf("%s: changed: %t", step.name, changed)
		}
		if again, err := table.changed(); again || err != nil {
			return fmt.Errorf("%s: changed again: %t, %v", step.name, again, err)
		}
		if n := strings.Count(string(after), " "+dir+" "); n != step.shows {
			return fmt.Errorf("%s: %d mounts:\n%s", step.name, n, after)
		}
	}
	return nil
}

// Longer than what one read gives.
func TestMountsReadsALongTable(t *testing.T) {
	f := newFixture(t, "", "")
	var table strings.Builder
	for i := range 2000 {
		table.WriteString(entry(fmt.Sprintf("%s/%d", f.dir, i), fmt.Sprintf("nfs:/%d", i)))
	}
	write(t, f.info, table.String()+entry(f.target, "nfs:/last"))
	if all, err := f.Mounts(); err != nil || len(all) != 2001 {
		t.Errorf("%d mounts, %v", len(all), err)
	}
	if layers, err := f.Layers(f.target); err != nil || len(layers) != 1 || layers[0].Source != "nfs:/last" {
		t.Errorf("%v, %v", layers, err)
	}
}

// What can't be read is an error, not a node on which nothing is mounted.
func TestMountsRefusesWhatItCannotRead(t *testing.T) {
	f := newFixture(t, "", "")
	for name, table := range map[string]string{
		"too short":  "40 30 0:50\n" + entry(f.target, "nfs:/a"),
		"bad escape": entry(f.target+`\08`, "nfs:/a"),
		"no source":  "40 30 0:50 / " + f.target + " rw\n",
	} {
		write(t, f.info, table)
		if layers, err := f.Layers(f.target); err == nil {
			t.Errorf("%s: %v", name, layers)
		}
	}
}

func BenchmarkLayers(b *testing.B) {
	m, dir := New(Options{}), b.TempDir()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Layers(dir); err != nil {
			b.Fatal(err)
		}
	}
}
