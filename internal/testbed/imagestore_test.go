package testbed

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestImageStoreFailedBuild(t *testing.T) {
	store, ctx := newTestStore(t)
	err := buildFrom(ctx, t, store, "RUN echo the reason; exit 3")
	if err == nil || !strings.Contains(err.Error(), "the reason") {
		t.Errorf("error %v, want one with what the build said", err)
	}
	checkNothingRuns(t, store)
}

func TestImageStoreCancelledBuild(t *testing.T) {
	store, ctx := newTestStore(t)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	started := make(chan bool, 1)
	go func() {
		defer cancel()
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
			if len(processesIn(store.dir)) > 0 {
				started <- true
				return
			}
		}
		started <- false
	}()
	err := buildFrom(ctx, t, store, "RUN sleep 900 & sleep 900")
	if !<-started {
		t.Fatalf("the build did not get to its command: %v", err)
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
	checkNothingRuns(t, store)
}

func newTestStore(t *testing.T) (imageStore, context.Context) {
	t.Helper()
	h, ctx, _ := newImageHost(t)
	if err := EnsurePackages(ctx, h.progress, imagePackages...); err != nil {
		t.Fatal(err)
	}
	bases, err := h.baseImages(ctx)
	if err != nil {
		t.Fatal(err)
	}
	store := imageStore{dir: t.TempDir(), bases: bases}
	if err := store.create(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.remove(); err != nil {
			t.Error(err)
		}
	})
	return store, ctx
}

func buildFrom(ctx context.Context, t *testing.T, store imageStore, commands string) error {
	t.Helper()
	source := t.TempDir()
	dockerfile := "FROM " + debianImage + "\n" + commands + "\n"
	if err := os.WriteFile(filepath.Join(source, "Dockerfile"), []byte(dockerfile), 0o644); err != nil {
		t.Fatal(err)
	}
	return store.build(ctx, source, "Dockerfile", "localhost/test")
}

// checkNothingRuns fails the test if a build has left a process or a mount behind.
func checkNothingRuns(t *testing.T, store imageStore) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		left := processesIn(store.dir)
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) { // a killed process takes a moment to go
			t.Errorf("processes left behind: %q", left)
			break
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), store.dir) {
		t.Error("a mount is left behind")
	}
}

// processesIn returns the processes that have a container of the store at dir as their root.
func processesIn(dir string) []string {
	roots, _ := filepath.Glob("/proc/[0-9]*/root")
	var found []string
	for _, root := range roots {
		if target, err := os.Readlink(root); err == nil && strings.HasPrefix(target, dir) {
			found = append(found, filepath.Dir(root))
		}
	}
	return found
}
