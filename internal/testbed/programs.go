package testbed

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// goCommand prepares the go command in a module's folder, for programs that run without libc.
func goCommand(ctx context.Context, module string, args ...string) *exec.Cmd {
	cmd := command(ctx, "go", args...)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOOS=linux")
	return cmd
}

// program returns one of the testbed's own small programs, built: "guestinit" or "registrar".
func (h *Host) program(ctx context.Context, name string) (string, error) {
	hash, err := hashFiles(h.source(name), h.source("go.mod"), h.source("go.sum"))
	if err != nil {
		return "", err
	}
	dir, err := h.cache.Entry(ctx, name, Key(hash, runtime.Version(), runtime.GOARCH), func(ctx context.Context, dir string) error {
		done := h.progress.Step("building " + name)
		_, err := run(ctx, goCommand(ctx, h.source(), "build", "-trimpath", "-ldflags", "-s -w", "-o", dir+"/", "./"+name))
		done(err)
		return err
	})
	return filepath.Join(dir, name), err
}

// Build builds one of the repository's programs into the file to, or with "test", "-c" the tests of one of
// its packages, by the go command with these arguments. The last is the package.
func (h *Host) Build(ctx context.Context, to string, args ...string) error {
	last := len(args) - 1
	_, err := run(ctx, goCommand(ctx, h.Root(), append(args[:last:last], "-trimpath", "-o", to, args[last])...))
	return err
}
