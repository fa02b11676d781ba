// Package servers tests what several NFS servers do to one provisioner when one of
// them dies, hangs, is slow, full, read-only or another one than it was: it hurts
// only its own volumes. TestMain boots a machine with a control plane and as many
// kernel NFS servers as the tests want, and runs the tests inside; the provisioner
// is a plain process there.
package servers

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sharevol.dev/sharevol/internal/testbed"
)

const (
	// testTimeout ends the tests before the machine is ended, so that the logs are printed.
	testTimeout = 15 * time.Minute
	// program is the provisioner, below testbed.GuestShare.
	program = "sharevol-provisioner"
	// dirsTest is the unit tests of the directory work, likewise.
	dirsTest = "dirs.test"
	// parallel is how many tests may run at once: they wait more than they work, and
	// the machine's one processor would make it one.
	parallel = "-test.parallel=16"
)

func TestMain(m *testing.M) {
	os.Exit(testbed.TestMain(m, func(ctx context.Context, host *testbed.Host, dir string) (testbed.Run, error) {
		files := map[string]string{program: filepath.Join(dir, program), dirsTest: filepath.Join(dir, dirsTest)}
		return testbed.Run{Name: "servers", Args: []string{parallel}, Files: files, Timeout: testTimeout + 5*time.Minute}, errors.Join(
			host.Build(ctx, files[program], "build", "./provisioner"),
			host.Build(ctx, files[dirsTest], "test", "-c", "./internal/share/dirs"),
		)
	}))
}
