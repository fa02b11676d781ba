package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// Release names a release of Kubernetes, "v1.20.15" for example, that has a module in the folder "releases".
// The zero Release is today's, which the module "kubernetes" pins.
//
// For another release, make such a module: it requires k8s.io/kubernetes; replaces Kubernetes' own other modules,
// which that one names by folders, by v0.MINOR.PATCH, and all else as that one does, which a module can't hand
// on; names the programs as tools, before 1.24 openapi-gen too; and has been through "go mod tidy -e", whose
// complaints are about other modules' tests. Before 1.24, github.com/modern-go/reflect2 must be v1.0.2.
type Release string

// releasePrograms are what is built of an older release; etcd and kubectl are today's.
var releasePrograms = []string{"kube-apiserver", "kube-controller-manager"}

// Before reports whether this is a release before Kubernetes 1.minor. Today's is before none.
func (r Release) Before(minor int) bool {
	if r == "" {
		return false
	}
	number, err := strconv.Atoi(strings.Split(string(r)+"..", ".")[1])
	return err == nil && number < minor
}

func (r Release) String() string {
	if r == "" {
		return "newest"
	}
	return string(r)
}

// ControlPlane returns a folder with kube-apiserver and kube-controller-manager of a release, built from
// its Go modules.
func (h *Host) ControlPlane(ctx context.Context, release Release) (string, error) {
	if release == "" {
		return h.Kubernetes(ctx)
	}
	module := h.source("releases", string(release))
	mod, err := os.ReadFile(filepath.Join(module, "go.mod"))
	if err != nil {
		return "", fmt.Errorf("read the pinned versions of Kubernetes %s: %w", release, err)
	}
	sum, err := os.ReadFile(filepath.Join(module, "go.sum"))
	if err != nil {
		return "", fmt.Errorf("read the pinned versions of Kubernetes %s: %w", release, err)
	}
	ldflags, version, err := kubernetesLdflags(mod)
	if err != nil {
		return "", err
	}
	if version != string(release) {
		return "", fmt.Errorf("the module of Kubernetes %s requires %s", release, version)
	}
	key := Key(string(mod), string(sum), ldflags, runtime.GOARCH)
	return h.cache.Entry(ctx, "kubernetes-"+version, key, func(ctx context.Context, dir string) error {
		done := h.progress.Step("building the control plane of Kubernetes " + version +
			" from its Go modules (some 5 minutes the first time, with 2 cores)")
		err := buildRelease(ctx, module, dir, release, ldflags)
		done(err)
		return err
	})
}

func buildRelease(ctx context.Context, module, dir string, release Release, ldflags string) (err error) {
	args := []string{"build", "-trimpath", "-o", dir + "/"}
	if release.Before(24) { // the module lacks what the release generates when it is built
		work := filepath.Join(dir, "work")
		defer func() { err = errors.Join(err, removeTree(work)) }()
		if err := completeSource(ctx, module, work); err != nil {
			return err
		}
		module = work
		args = append(args, "-mod=vendor")
		ldflags += " -checklinkname=0" // Go's linker forbids by now what was usual then
	}
	args = append(args, "-ldflags", ldflags)
	for _, program := range releasePrograms {
		args = append(args, kubernetesPrograms[program])
	}
	if _, err := run(ctx, goCommand(ctx, module, args...)); err != nil {
		return err
	}
	for _, program := range releasePrograms {
		if !exists(filepath.Join(dir, program)) {
			return fmt.Errorf("go build made no %s", program)
		}
	}
	return nil
}
