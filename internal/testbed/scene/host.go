// Package scene is what the end-to-end tests and the demo share: sharevol, built
// and installed as its users do it, in a cluster with an NFS server, and ways to
// look at all of that.
package scene

import (
	"context"
	"io"
	"path/filepath"

	"sharevol.dev/sharevol/internal/testbed"
)

// Run returns how a program goes through a machine with sharevol's images and
// manifests. The machine's output goes to output.
func Run(host *testbed.Host, name string, args []string, output io.Writer) testbed.Run {
	return testbed.Run{
		Name: name, Args: args, Output: output,
		Images: func(ctx context.Context) ([]string, error) {
			version, err := host.Version()
			if err != nil {
				return nil, err
			}
			return host.Images(ctx, version)
		},
		Files: map[string]string{"manifests": filepath.Join(host.Root(), "manifests")},
	}
}
