package testbed

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// openAPIPackage is where Kubernetes before 1.24 expects its OpenAPI definitions, which it generates when it
// is built: they are not in its module.
const openAPIPackage = "k8s.io/kubernetes/pkg/generated/openapi"

// openAPITag marks the packages that the definitions are made from.
var openAPITag = regexp.MustCompile(`(?m)^// *\+k8s:openapi-gen=`)

// openAPINot are packages below k8s.io that have the mark and are not Kubernetes' own API.
var openAPINot = []string{"kube-openapi", "code-generator"}

// completeSource makes the folder work: a copy of an old release's module with all that it needs in its
// vendor folder, the OpenAPI definitions among it. They are made by the generator that the release pins.
func completeSource(ctx context.Context, module, work string) error {
	if err := os.MkdirAll(work, 0o755); err != nil {
		return fmt.Errorf("make a build folder: %w", err)
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(module, name))
		if err != nil {
			return fmt.Errorf("copy the module: %w", err)
		}
		if err := os.WriteFile(filepath.Join(work, name), text, 0o644); err != nil {
			return fmt.Errorf("copy the module: %w", err)
		}
	}
	generator := filepath.Join(work, "openapi-gen")
	for _, args := range [][]string{
		{"mod", "vendor"},
		{"build", "-mod=vendor", "-o", generator, "k8s.io/kube-openapi/cmd/openapi-gen"},
	} {
		if _, err := run(ctx, goCommand(ctx, work, args...)); err != nil {
			return err
		}
	}
	vendor := filepath.Join(work, "vendor")
	inputs, err := openAPIInputs(vendor)
	if err != nil {
		return err
	}
	return generateOpenAPI(ctx, work, vendor, generator, inputs)
}

// openAPIInputs returns the packages that have the mark, by their import paths.
func openAPIInputs(vendor string) ([]string, error) {
	var inputs []string
	err := filepath.WalkDir(filepath.Join(vendor, "k8s.io"), func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains(openAPINot, d.Name()):
			return fs.SkipDir
		case !d.Type().IsRegular() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil || !openAPITag.Match(text) {
			return err
		}
		input, err := filepath.Rel(vendor, filepath.Dir(path))
		if err == nil && !slices.Contains(inputs, input) {
			inputs = append(inputs, input)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look for the API's packages: %w", err)
	}
	if len(inputs) == 0 {
		return nil, fmt.Errorf("no package below %s is marked for OpenAPI", vendor)
	}
	slices.Sort(inputs)
	return inputs, nil
}

// generateOpenAPI makes the definitions of the packages inputs, and puts them where the release expects them.
// The generator knows no modules: it finds the packages in a GOPATH, as which the vendor folder serves.
func generateOpenAPI(ctx context.Context, work, vendor, generator string, inputs []string) error {
	gopath, generated, header := filepath.Join(work, "gopath"), filepath.Join(work, "generated"), filepath.Join(work, "header.txt")
	if err := os.Mkdir(gopath, 0o755); err != nil {
		return fmt.Errorf("make a GOPATH: %w", err)
	}
	if err := os.Symlink(vendor, filepath.Join(gopath, "src")); err != nil {
		return fmt.Errorf("make a GOPATH: %w", err)
	}
	if err := os.WriteFile(header, []byte("// generated\n"), 0o644); err != nil {
		return fmt.Errorf("write the header of generated files: %w", err)
	}
	cmd := command(ctx, generator, "--logtostderr",
		"-i", strings.Join(inputs, ","), "-p", openAPIPackage, "-O", "zz_generated.openapi",
		"-h", header, "-o", generated, "-r", filepath.Join(work, "violations"))
	cmd.Dir = filepath.Join(gopath, "src", "k8s.io", "kubernetes")
	cmd.Env = append(os.Environ(), "PWD="+cmd.Dir, "GO111MODULE=off", "GOPATH="+gopath, "GOFLAGS=", "CGO_ENABLED=0",
		"GODEBUG=gotypesalias=0") // it was written before go/types knew aliases
	if _, err := run(ctx, cmd); err != nil {
		return err
	}
	const name = "zz_generated.openapi.go"
	text, err := os.ReadFile(filepath.Join(generated, openAPIPackage, name))
	if err != nil {
		return fmt.Errorf("read the OpenAPI definitions: %w", err)
	}
	if !bytes.Contains(text, []byte("func GetOpenAPIDefinitions(")) {
		return fmt.Errorf("%s made no OpenAPI definitions", generator)
	}
	if err := os.WriteFile(filepath.Join(vendor, openAPIPackage, name), text, 0o644); err != nil {
		return fmt.Errorf("add the OpenAPI definitions: %w", err)
	}
	return nil
}
