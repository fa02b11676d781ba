package servers

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sharevol.dev/sharevol/internal/testbed"
)

// dirsWithin is what the tests of the directory work may take: twice what they take
// beside the other tests, and some twenty times what they take on a local disk.
const dirsWithin = 8 * time.Minute

// dirsAtOnce is how many of them run at a time.
const dirsAtOnce = 3

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
	program := filepath.Join(testbed.GuestShare, dirsTest)
	list, err := exec.CommandContext(ctx, program, "-test.list", "^Test").Output()
	check(t, err)
	names := strings.Fields(string(list))
	// They wait for the server more than they work.
	var passed atomic.Int32
	var group sync.WaitGroup
	for i := range dirsAtOnce {
		var some []string
		for j := i; j < len(names); j += dirsAtOnce {
			some = append(some, names[j])
		}
		group.Go(func() {
			tests := exec.CommandContext(ctx, program, "-test.v", "-test.short", "-test.run", "^("+strings.Join(some, "|")+")$", "-test.timeout", dirsWithin.String())
			tests.Env = append(os.Environ(), "TMPDIR="+tmp)
			tests.Dir = "/"
			out, err := tests.CombinedOutput()
			if err != nil {
				t.Errorf("%v: %s", err, out)
			}
			passed.Add(int32(len(regexp.MustCompile(`(?m)^--- PASS`).FindAll(out, -1))))
		})
	}
	group.Wait()
	if t.Logf("%d of %d tests passed", passed.Load(), len(names)); passed.Load() == 0 {
		t.Error("none has run")
	}
}
