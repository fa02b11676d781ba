// Package scene is what the end-to-end tests and the demo share: sharevol, built
// and installed as its users do it, in a cluster with an NFS server, and ways to
// look at all of that.
package scene

import (
	"context"
	"os"
	"path/filepath"

	"sharevol.dev/sharevol/internal/testbed"
)

// Run returns how this program goes through a machine with sharevol's images and
// manifests. Its output comes out of this one.
func Run(host *testbed.Host, name string) testbed.Run {
	return testbed.Run{
		Name: name, Output: os.Stdout,
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
