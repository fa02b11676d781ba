package servers

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	storagev1 "k8s.io/api/storage/v1"

	"sharevol.dev/sharevol/internal/testbed"
	"sharevol.dev/sharevol/internal/testbed/guest"
)

// checkReport is what of a report is looked at here, by the names that README gives.
type checkReport struct {
	Status string
	Shares []*checkShare
}

type checkShare struct {
	Share, ID, NFSVersion string
	Reachable             bool
	FreeBytes             uint64
	Volumes               int
	Missing               []struct{ Volume, SubDir string }
	Orphans               []struct{ Path string }
	Archives              []struct{ Files int }
	Faults                []string
}

// A check beside a provisioner that has the shares mounted sees what is there, changes
// nothing, ends with a dead server in the time that it promises, and leaves nothing,
// not even when it is killed and run again.
func (w *world) testCheck(t *testing.T) {
	p := w.provisioner(t)
	server, dying := w.server(t), w.server(t)
	w.class(t, "check", server, "/", func(class *storagev1.StorageClass) {
		class.Parameters["subDir"] = "${pvc.metadata.namespace}/${pvc.metadata.name}"
	})
	w.class(t, "check-archive", server, "/", func(class *storagev1.StorageClass) { class.Parameters["onDelete"] = "archive" })
	w.class(t, "check-v3", dying, dying.PathV3("/"), func(class *storagev1.StorageClass) {
		class.MountOptions = []string{"nfsvers=3", "nolock", "hard"}
	})
	volumes := w.made(t, "check", "check-0", "check-1")
	archived := w.made(t, "check-archive", "check-2")
	w.made(t, "check-v3", "check-3")
	fill(t, server.Dir(w.directory(t, archived[0])), 4)
	w.remove(t, "check-2")
	check(t, w.allGone(t.Context(), soon, archived...))

	report := w.check(t, 0)
	s, v3 := shareOf(t, report, server), shareOf(t, report, dying)
	if s.NFSVersion != "4.2" || v3.NFSVersion != "3" || s.Volumes != 2 || len(s.Archives) != 1 || s.Archives[0].Files != 4 || s.FreeBytes == 0 || s.ID == "" {
		t.Errorf("%+v\n%+v", s, v3)
	}

	check(t, os.Remove(server.Dir(w.directory(t, volumes[1]))))
	check(t, os.MkdirAll(server.Dir("default/by-hand"), 0o755))
	s = shareOf(t, w.check(t, 1), server)
	if len(s.Missing) != 1 || s.Missing[0].Volume != volumes[1] || len(s.Orphans) != 1 || s.Orphans[0].Path != "default/by-hand" {
		t.Errorf("%+v", s)
	}
	w.checkDead(t, dying)

	// The provisioner has not noticed anything.
	w.made(t, "check", "check-4")
	p.stop(t)
	w.remove(t, "check-0", "check-1", "check-3", "check-4")
}

// checkDead is the part with a dead server.
func (w *world) checkDead(t *testing.T, dying *guest.NFSServer) {
	check(t, dying.LinkDown(t.Context()))
	before := countMounts("self")
	start := time.Now()
	report := w.check(t, 1)
	if s := shareOf(t, report, dying); s.Reachable || len(s.Faults) == 0 {
		t.Errorf("%+v", s)
	}
	t.Logf("with a dead server: done after %s", ms(time.Since(start)))

	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		cmd := checkCommand(t.Context())
		check(t, cmd.Start())
		time.Sleep(3 * time.Second) // it has mounted the one share, and waits for the other
		start := time.Now()
		check(t, cmd.Process.Signal(signal))
		_ = cmd.Wait() // how it ended is looked at below
		took, status := time.Since(start), cmd.ProcessState.ExitCode()
		t.Logf("%v: ended after %s with %d", signal, ms(took), status)
		if signal == syscall.SIGINT && (status != 2 || took > 30*time.Second || countMounts("self") != before) {
			t.Errorf("status %d after %s, %d mounts, %d before", status, took, countMounts("self"), before)
		}
	}
	check(t, dying.LinkUp(t.Context()))
	w.check(t, 1)
	if now := countMounts("self"); now != before {
		t.Errorf("%d mounts, %d before", now, before)
	}
	if rooms, err := filepath.Glob("/run/sharevol/check-*"); err != nil || len(rooms) > 0 {
		t.Errorf("left behind: %q, %v", rooms, err)
	}
}

func checkCommand(ctx context.Context) *exec.Cmd {
	return exec.CommandContext(ctx, filepath.Join(testbed.GuestShare, program), "check", "-o=json", "--kubeconfig="+guest.KubeconfigPath)
}

// check runs a check, which must end with the given status.
func (w *world) check(t *testing.T, status int) *checkReport {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := checkCommand(t.Context())
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	_ = cmd.Run() // its status tells
	var report checkReport
	if err := json.Unmarshal(stdout.Bytes(), &report); err != nil || cmd.ProcessState.ExitCode() != status {
		t.Fatalf("status %d, want %d: %v\n%s\n%s", cmd.ProcessState.ExitCode(), status, err, &stdout, &stderr)
	}
	return &report
}

func shareOf(t *testing.T, report *checkReport, server *guest.NFSServer) *checkShare {
	t.Helper()
	i := slices.IndexFunc(report.Shares, func(s *checkShare) bool { return strings.HasPrefix(s.Share, server.Address+":") })
	if i < 0 {
		t.Fatalf("%s is not in %+v", server.Address, report.Shares)
	}
	return report.Shares[i]
}
