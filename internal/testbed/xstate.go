package testbed

import (
	"context"
	"os"
	"path/filepath"
	"strings"
)

// xstateFix returns a library to preload into the user-mode kernel, or "" where none is needed. On a
// processor with AMX that kernel can't run a single process without it; xstate/xstate.c says why.
func (h *Host) xstateFix(ctx context.Context) (string, error) {
	if !needsXstateFix() {
		return "", nil
	}
	source := h.source("xstate", "xstate.c")
	hash, err := hashFiles(source)
	if err != nil {
		return "", err
	}
	dir, err := h.cache.Entry(ctx, "xstate", hash, func(ctx context.Context, dir string) error {
		_, err := run(ctx, command(ctx, "gcc", "-O2", "-shared", "-fPIC", "-nostdlib", "-o", filepath.Join(dir, "xstate.so"), source))
		return err
	})
	return filepath.Join(dir, "xstate.so"), err
}

// needsXstateFix says whether the processor has AMX. Where that can't be read, it has none.
func needsXstateFix() bool {
	info, err := os.ReadFile("/proc/cpuinfo")
	return err == nil && strings.Contains(string(info), " amx_tile")
}
