// Package publish tests the node plugin on real NFS: kernel servers that die, are cut
// off, lose their export or a directory, while volumes are mounted, being mounted and
// being unmounted, and a plugin that is killed at any moment. TestMain boots a machine
// and runs the tests inside; the plugin is a plain process there, and kubelet's part
// is played by the tests.
package publish

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sharevol.dev/sharevol/internal/testbed"
)

const (
	// testTimeout ends the tests before the machine is ended, so that the logs are printed.
	testTimeout = 12 * time.Minute
	// program is the plugin, below testbed.GuestShare.
	program = "sharevol-node"
	// parallel is how many tests may run at once: they wait more than they work.
	parallel = "-test.parallel=16"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(writerVariable); path != "" {
		if err := runWriter(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(testbed.TestMain(m, func(ctx context.Context, host *testbed.Host, dir string) (testbed.Run, error) {
		built := filepath.Join(dir, program)
		return testbed.Run{
			Name: "publish", Args: []string{parallel}, Files: map[string]string{program: built}, Timeout: testTimeout + 5*time.Minute,
		}, host.Build(ctx, built, "build", "-tags", "grpcnotrace", "-gcflags=all=-l", "./nodeplugin")
	}))
}
