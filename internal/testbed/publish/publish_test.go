package publish

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// lockWithin is longer than the time in which a server that has just started grants no
// new locks of NFSv3, some 90 s.
const lockWithin = 2 * time.Minute

func TestPublish(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	stopStatd := startStatd(ctx, t)
	defer stopStatd()
	// The first measures, so that it is alone.
	t.Run("Burst", testBurst)
	t.Run("Together", func(t *testing.T) {
		for name, test := range map[string]func(*testing.T){
			"Stopped": testStopped, "Cut": testCut, "BlockedWriters": testBlockedWriters, "Stats": testStats,
			"DirectoryDeleted": testDirectoryDeleted, "ExportRemoved": testExportRemoved, "Repeated": testRepeated,
			"Link": testLink, "FilesInTheTarget": testFilesInTheTarget, "Kills": testKills, "Versions": testVersions,
			"ReadOnly": testReadOnly,
		} {
			t.Run(name, test)
		}
	})
	// What is left of detached mounts goes once their servers have been back.
	deadline := time.Now().Add(time.Minute)
	for left := stuck(t); len(left) > 0; left = stuck(t) {
		if time.Now().After(deadline) {
			t.Errorf("stuck: %q", left)
			break
		}
		time.Sleep(time.Second)
	}
}

// startStatd starts the host's lock daemon for NFSv3, which the plugin finds running.
func startStatd(ctx context.Context, t *testing.T) (stop func()) {
	t.Helper()
	check(t, os.MkdirAll("/var/lib/nfs/sm", 0o700))
	check(t, os.MkdirAll("/var/lib/nfs/sm.bak", 0o700))
	for _, command := range [][]string{{"rpcbind", "-w"}, {"rpc.statd"}} {
		out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
		if err != nil {
			t.Logf("%q: %v: %s", command, err, out) // it may run already
		}
	}
	return func() {
		_ = exec.Command("pkill", "-x", "rpc.statd").Run() // the machine ends with the tests anyway
	}
}

// Every version that README names: publish, write, lock where there are locks, and
// unpublish.
func testVersions(t *testing.T) {
	t.Parallel()
	p, server := startPlugin(t), newServer(t)
	for name, flags := range map[string][]string{
		"v4.0": {"nfsvers=4.0"}, "v4.1": {"nfsvers=4.1"}, "v4.2": {"nfsvers=4.2"}, "default": nil,
		"v3-nolock": {"nfsvers=3", "nolock"}, "v3-statd": {"nfsvers=3"},
	} {
		v := newVolume(t, server, name)
		v.flags = flags
		target := p.target("pod", name)
		if err := p.publish(t.Context(), v, target); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		startWriter(t, target).finish(t, server.Dir(name))
		file, err := os.Create(filepath.Join(target, "locked"))
		check(t, err)
		locked := make(chan error, 1)
		go func() {
			err := lock(file)
			for errors.Is(err, syscall.EINTR) { // by the Go runtime's own signals
				err = lock(file)
			}
			locked <- err
		}()
		select {
		case err := <-locked:
			if err != nil {
				t.Errorf("%s: lock: %v", name, err)
			}
		case <-time.After(lockWithin):
			t.Errorf("%s: lock: no answer", name)
		}
		check(t, file.Close())
		check(t, p.unpublish(t.Context(), target))
	}
}

func lock(file *os.File) error {
	return syscall.FcntlFlock(file.Fd(), syscall.F_SETLK, &syscall.Flock_t{Type: syscall.F_WRLCK})
}

// ro comes from the request and from the mount flags; mount options come from the
// secret, too, and are in no log.
func testReadOnly(t *testing.T) {
	t.Parallel()
	p, server := startPlugin(t), newServer(t)
	v := newVolume(t, server, "v")
	flagged := v
	flagged.flags = append([]string{"ro"}, flags42...)
	for name, publish := range map[string]func(target string) error{
		"request": func(target string) error {
			return p.publishWith(t.Context(), v, target, func(r *csi.NodePublishVolumeRequest) { r.Readonly = true })
		},
		"flag": func(target string) error { return p.publish(t.Context(), flagged, target) },
		"secret": func(target string) error {
			return p.publishWith(t.Context(), v, target, func(r *csi.NodePublishVolumeRequest) {
				r.Secrets = map[string]string{"mountOptions": "ro,timeo=123"}
			})
		},
	} {
		target := p.target(name, "v")
		check(t, publish(target))
		if err := os.WriteFile(filepath.Join(target, "file"), nil, 0o644); !strings.Contains(err.Error(), "read-only") {
			t.Errorf("%s: %v", name, err)
		}
		table, err := os.ReadFile("/proc/self/mountinfo")
		check(t, err)
		if name == "secret" && !strings.Contains(string(table), "timeo=123") {
			t.Error("the secret's options are not used")
		}
		check(t, p.unpublish(t.Context(), target))
	}
	log, err := os.ReadFile(p.log)
	check(t, err)
	if strings.Contains(string(log), "timeo=123") {
		t.Error("the secret's options are in the log")
	}
}
