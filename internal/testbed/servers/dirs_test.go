package servers

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"sharevol.dev/sharevol/internal/testbed"
)

// dirsWithin is what the tests of the directory work may take: twice what they take
// beside the other tests, and some twenty times what they take on a local disk.
const dirsWithin = 8 * time.Minute

// The unit tests of the directory work, on NFS instead of a local disk: whatever they
// see of crashes, races, links and other people's data is so there too.
func (w *world) testDirectoryWork(t *testing.T) {
	server := w.server(t)
	dir, err := os.MkdirTemp("/run", "dirs-")
	check(t, err)
	check(t, os.Chmod(dir, 0o755)) // some of the tests are an ordinary user's
	ctx, cancel := context.WithTimeout(t.Context(), dirsWithin)
	defer cancel()
	out, err := exec.CommandContext(ctx, "mount", "-t", "nfs", "-o", "nfsvers=4.2,hard", server.Address+":/", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("mount: %v: %s", err, out)
	}
	defer func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
		check(t, os.Remove(dir))
	}()
	tmp := filepath.Join(dir, "tmp")
	check(t, os.Mkdir(tmp, 0o777))
	tests := exec.CommandContext(ctx, filepath.Join(testbed.GuestShare, dirsTest), "-test.v", "-test.short", "-test.timeout", dirsWithin.String())
	tests.Env = append(os.Environ(), "TMPDIR="+tmp)
	tests.Dir = "/"
	out, err = tests.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("%d tests passed", len(regexp.MustCompile(`(?m)^--- PASS`).FindAll(out, -1)))
}
