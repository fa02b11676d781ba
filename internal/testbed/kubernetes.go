package testbed

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
)

// kubernetesPrograms maps each program that a cluster needs to its main package in the nested module.
var kubernetesPrograms = map[string]string{
	"etcd":                    "go.etcd.io/etcd/server/v3",
	"kube-apiserver":          "k8s.io/kubernetes/cmd/kube-apiserver",
	"kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
	"kube-scheduler":          "k8s.io/kubernetes/cmd/kube-scheduler",
	"kubelet":                 "k8s.io/kubernetes/cmd/kubelet",
	"kubectl":                 "k8s.io/kubernetes/cmd/kubectl",
}

var kubernetesVersion = regexp.MustCompile(`(?m)^\s*k8s\.io/kubernetes v(\d+)\.(\d+)\.(\S+)`)

// Kubernetes returns a folder with etcd and the programs of Kubernetes, built from their Go modules at
// the versions that the nested module "kubernetes" pins.
func (h *Host) Kubernetes(ctx context.Context) (string, error) {
	module := h.source("kubernetes")
	mod, err := os.ReadFile(filepath.Join(module, "go.mod"))
	if err != nil {
		return "", fmt.Errorf("read the pinned versions: %w", err)
	}
	sum, err := os.ReadFile(filepath.Join(module, "go.sum"))
	if err != nil {
		return "", fmt.Errorf("read the pinned versions: %w", err)
	}
	ldflags, version, err := kubernetesLdflags(mod)
	if err != nil {
		return "", err
	}
	key := Key(string(mod), string(sum), ldflags, runtime.GOARCH)
	return h.cache.Entry(ctx, "kubernetes", key, func(ctx context.Context, dir string) error {
		done := h.progress.Step("building etcd and Kubernetes " + version +
			" from their Go modules (some 6 minutes the first time, with 2 cores)")
		err := buildKubernetes(ctx, module, dir, ldflags)
		done(err)
		return err
	})
}

// kubernetesLdflags stamps the version in: clients and kubelet parse what /version answers.
func kubernetesLdflags(mod []byte) (ldflags, version string, err error) {
	v := kubernetesVersion.FindSubmatch(mod)
	if v == nil {
		return "", "", fmt.Errorf("the nested module requires no k8s.io/kubernetes")
	}
	version = fmt.Sprintf("v%s.%s.%s", v[1], v[2], v[3])
	flags := []string{"-s", "-w"}
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version", "k8s.io/kubernetes/pkg/version"} {
		for _, stamp := range []string{
			"gitVersion=" + version, "gitMajor=" + string(v[1]), "gitMinor=" + string(v[2]),
			"gitTreeState=clean", "gitCommit=unknown", "buildDate=1970-01-01T00:00:00Z",
		} {
			flags = append(flags, "-X", pkg+"."+stamp)
		}
	}
	return strings.Join(flags, " "), version, nil
}

func buildKubernetes(ctx context.Context, module, dir, ldflags string) error {
	args := []string{"build", "-trimpath", "-ldflags", ldflags, "-o", dir + "/"}
	for _, pkg := range kubernetesPrograms {
		args = append(args, pkg)
	}
	cmd := goCommand(ctx, module, args...)
	if _, err := run(ctx, cmd); err != nil {
		return err
	}
	// go build names a program after the last element of its path that is no version
	if err := os.Rename(filepath.Join(dir, "server"), filepath.Join(dir, "etcd")); err != nil {
		return fmt.Errorf("name etcd: %w", err)
	}
	for name := range kubernetesPrograms {
		if !exists(filepath.Join(dir, name)) {
			return fmt.Errorf("go build made no %s", name)
		}
	}
	return nil
}
