package node_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// azurefile-csi-driver #3211: something wrote to the node's disk where a volume
// belongs. It is neither hidden nor deleted.
func TestFilesOnTheNodesDiskAreLeftAlone(t *testing.T) {
	f := newFixture(t)
	file := filepath.Join(f.target, "precious")
	if err := os.Mkdir(f.target, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, publishErr := f.node.NodePublishVolume(ctx, f.request())
	for call, err := range map[string]error{"publish": publishErr, "unpublish": f.unpublish()} {
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "precious") {
			t.Errorf("%s: %v", call, err)
		}
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}

func TestATargetThatIsNoDirectoryIsLeftAlone(t *testing.T) {
	for name, make := range map[string]func(string) error{
		"link": func(path string) error { return os.Symlink(t.TempDir(), path) },
		"file": func(path string) error { return os.WriteFile(path, nil, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			if err := make(f.target); err != nil {
				t.Fatal(err)
			}
			_, publishErr := f.node.NodePublishVolume(ctx, f.request())
			for call, err := range map[string]error{"publish": publishErr, "unpublish": f.unpublish()} {
				if status.Code(err) != codes.FailedPrecondition {
					t.Errorf("%s: %v", call, err)
				}
			}
			if _, err := os.Lstat(f.target); err != nil {
				t.Error(err)
			}
		})
	}
}
