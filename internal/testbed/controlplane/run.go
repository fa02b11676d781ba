package controlplane

import (
	"context"
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

// run runs a command to its end; an error carries what it said.
func run(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-buildvcs=false")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return errors.Join(fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, out), context.Cause(ctx))
	}
	return nil
}

// BuildProvisioner builds sharevol-provisioner as it is in the repository, with build tags if there are any,
// into the file path.
func BuildProvisioner(ctx context.Context, host *testbed.Host, path string, tags ...string) error {
	ctx, cancel := context.WithTimeout(ctx, buildWithin)
	defer cancel()
	return host.Build(ctx, path, "build", "-tags", strings.Join(tags, ","), "./provisioner")
}
