package controlplane

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"sharevol.dev/sharevol/internal/testbed"
)

// buildWithin bounds the building of the provisioner, which takes a minute with a cold cache.
const buildWithin = 10 * time.Minute

// output runs a command to its end and returns its output; an error carries all that it said.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-buildvcs=false")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		said := stdout.String() + stderr.String()
		return "", errors.Join(fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, said), context.Cause(ctx))
	}
	return stdout.String(), nil
}

// BuildProvisioner builds sharevol-provisioner as it is in the repository, with build tags if there are any,
// into the file path.
func BuildProvisioner(ctx context.Context, host *testbed.Host, path string, tags ...string) error {
	return buildProvisioner(ctx, host, path, "-tags", strings.Join(tags, ","))
}

// BuildChangedProvisioner builds it as it would be with one change to a source file of the repository: new in
// place of old, which must be there once. So a test shows what it would see without what it tests.
func BuildChangedProvisioner(ctx context.Context, host *testbed.Host, path, source, old, new string) error {
	source = filepath.Join(host.Root(), source)
	text, err := os.ReadFile(source)
	if err != nil {
		return fmt.Errorf("change the provisioner: %w", err)
	}
	if strings.Count(string(text), old) != 1 {
		return fmt.Errorf("change the provisioner: %s does not have %q once", source, old)
	}
	changed, overlay := path+".go", path+".json"
	if err := os.WriteFile(changed, []byte(strings.Replace(string(text), old, new, 1)), 0o644); err != nil {
		return fmt.Errorf("change the provisioner: %w", err)
	}
	files, err := json.Marshal(map[string]map[string]string{"Replace": {source: changed}})
	if err != nil {
		return fmt.Errorf("change the provisioner: %w", err)
	}
	if err := os.WriteFile(overlay, files, 0o644); err != nil {
		return fmt.Errorf("change the provisioner: %w", err)
	}
	return buildProvisioner(ctx, host, path, "-overlay", overlay)
}

func buildProvisioner(ctx context.Context, host *testbed.Host, path string, options ...string) error {
	ctx, cancel := context.WithTimeout(ctx, buildWithin)
	defer cancel()
	return host.Build(ctx, path, append(append([]string{"build"}, options...), "./provisioner")...)
}
