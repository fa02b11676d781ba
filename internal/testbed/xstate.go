package testbed

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// xstateFix returns a library to preload into the user-mode kernel, or "" where none is needed. On a
// processor with AMX that kernel can't run a single process without it; xstate/xstate.c says why.
func (h *Host) xstateFix(ctx context.Context) (string, error) {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", fmt.Errorf("read the processor's features: %w", err)
	}
	if !strings.Contains(string(info), " amx_tile") {
		return "", nil
	}
	source := h.source("xstate", "xstate.c")
	hash, err := hashFiles(source)
	if err != nil {
		return "", err
	}
	dir, err := h.cache.Entry(ctx, "xstate", hash, func(ctx context.Context, dir string) error {
		if _, err := exec.LookPath("gcc"); err != nil {
			if err := EnsurePackages(ctx, h.progress, "gcc"); err != nil {
				return err
			}
		}
		_, err := run(ctx, command(ctx, "gcc", "-O2", "-shared", "-fPIC", "-nostdlib", "-o", filepath.Join(dir, "xstate.so"), source))
		return err
	})
	return filepath.Join(dir, "xstate.so"), err
}
