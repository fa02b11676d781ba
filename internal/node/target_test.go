package node_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
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

// A target with very many files on the node's disk: what a look at it costs.
func TestATargetWithManyFiles(t *testing.T) {
	f := newFixture(t)
	if err := os.Mkdir(f.target, 0o700); err != nil {
		t.Fatal(err)
	}
	const files = 20_000
	for i := range files {
		if err := os.WriteFile(fmt.Sprintf("%s/some-file-of-an-application-%07d.data", f.target, i), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	err := f.unpublish()
	runtime.ReadMemStats(&after)
	if status.Code(err) != codes.FailedPrecondition {
		t.Errorf("got %v", err)
	}
	if taken := after.TotalAlloc - before.TotalAlloc; taken > 1<<20 {
		t.Errorf("%d files: unpublish allocated %d KiB", files, taken>>10)
	}
}
