// Package e2e tests sharevol as its users have it: built from its Dockerfiles,
// installed by its manifests, in a real cluster, with the Linux kernel's NFS server
// and client. TestMain boots a machine for that and runs the tests inside.
package e2e

import (
	"context"
	"os"
	"testing"
	"time"

	"sharevol.dev/sharevol/internal/testbed"
	"sharevol.dev/sharevol/internal/testbed/scene"
)

// testTimeout ends the tests before the machine is ended, so that the logs are printed.
const testTimeout = 35 * time.Minute

func TestMain(m *testing.M) {
	os.Exit(testbed.TestMain(m, func(_ context.Context, host *testbed.Host, _ string) (testbed.Run, error) {
		run := scene.Run(host, "e2e")
		run.Timeout = testTimeout + 5*time.Minute
		return run, nil
	}))
}
