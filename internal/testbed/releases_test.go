package testbed

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestReleaseBefore(t *testing.T) {
	for _, one := range []struct {
		release Release
		minor   int
		want    bool
	}{
		{"v1.15.12", 16, true}, {"v1.15.12", 15, false}, {"v1.9.3", 15, true}, {"v1.29.15", 24, false},
		{"", 99, false}, {"nonsense", 99, false},
	} {
		if got := one.release.Before(one.minor); got != one.want {
			t.Errorf("%q before 1.%d: %v", one.release, one.minor, got)
		}
	}
}

// Every release's module pins the release that its folder names.
func TestReleasesArePinned(t *testing.T) {
	modules, err := filepath.Glob(filepath.Join("releases", "*", "go.mod"))
	if err != nil || len(modules) == 0 {
		t.Fatalf("%q, %v", modules, err)
	}
	for _, module := range modules {
		mod, err := os.ReadFile(module)
		if err != nil {
			t.Fatal(err)
		}
		_, version, err := kubernetesLdflags(mod)
		if err != nil || version != filepath.Base(filepath.Dir(module)) {
			t.Errorf("%s: %q, %v", module, version, err)
		}
	}
}

func TestOpenAPIInputs(t *testing.T) {
	vendor := t.TempDir()
	for path, text := range map[string]string{
		"k8s.io/api/core/v1/doc.go":          "// +k8s:openapi-gen=true\n",
		"k8s.io/api/core/v1/types.go":        "//+k8s:openapi-gen=true\n",
		"k8s.io/api/empty/doc.go":            "package empty // +k8s:openapi-gen=true\n",
		"k8s.io/api/test/doc_test.go":        "// +k8s:openapi-gen=true\n",
		"k8s.io/kube-openapi/pkg/doc.go":     "// +k8s:openapi-gen=true\n",
		"k8s.io/code-generator/cmd/x/doc.go": "// +k8s:openapi-gen=true\n",
		"example.com/other/doc.go":           "// +k8s:openapi-gen=true\n",
	} {
		path = filepath.Join(vendor, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := openAPIInputs(vendor); err != nil || !slices.Equal(got, []string{"k8s.io/api/core/v1"}) {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := openAPIInputs(t.TempDir()); err == nil {
		t.Errorf("in an empty folder: %q", got)
	}
}
