package main

import (
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSparesMemoryUnlessToldOtherwise(t *testing.T) {
	processors := runtime.GOMAXPROCS(0)
	t.Cleanup(func() { runtime.GOMAXPROCS(processors) })
	t.Setenv("GOMAXPROCS", "")
	for there, want := range map[int]int{1: 1, 2: 2, 64: most} {
		runtime.GOMAXPROCS(there)
		spareMemory()
		if got := runtime.GOMAXPROCS(0); got != want {
			t.Errorf("of %d processors %d are used, want %d", there, got, want)
		}
	}
	t.Setenv("GOMAXPROCS", "3")
	runtime.GOMAXPROCS(3)
	spareMemory()
	if got := runtime.GOMAXPROCS(0); got != 3 {
		t.Errorf("%d processors are used, not those asked for", got)
	}
	for gogc, want := range map[string]int{"": heapGrowth, "70": 100} {
		before := debug.SetGCPercent(100)
		t.Setenv("GOGC", gogc)
		spareMemory()
		if got := debug.SetGCPercent(before); got != want {
			t.Errorf("GOGC=%q: %d%%, want %d%%", gogc, got, want)
		}
	}
}

// Nearly all of the program is resident. gRPC's traces bring in html/template, for which the
// linker keeps every method of every type: 2.7 of 14.4 MB. What the compiler puts in the place of
// calls (-l has it not) is 0.9 of 11.7 MB; the calls to the program wait for mounts all the same.
func TestIsBuiltSmall(t *testing.T) {
	for _, file := range []string{"../Makefile", "../Dockerfile.node"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		builds := 0
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, "build -trimpath") && strings.Contains(line, "./nodeplugin") {
				builds++
				if !strings.Contains(line, " -tags grpcnotrace -gcflags=all=-l ") {
					t.Errorf("%s: %s", file, line)
				}
			}
		}
		if builds != 1 {
			t.Errorf("%s: %d builds", file, builds)
		}
	}
	output, err := exec.Command("go", "list", "-tags", "grpcnotrace", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range strings.Fields(string(output)) {
		if slices.Contains([]string{"golang.org/x/net/trace", "html/template", "text/template"}, path) {
			t.Errorf("sharevol-node links %s", path)
		}
	}
}

func TestMemoryIsGivenBackAfterCalls(t *testing.T) {
	freed := make(chan bool, 10)
	called, end := giveBack(20*time.Millisecond, func() { freed <- true })
	defer end()
	waitFor := func(what string) {
		t.Helper()
		select {
		case <-freed:
		case <-time.After(30 * time.Second):
			t.Fatalf("not after %s", what)
		}
	}
	waitFor("the start")
	called("/csi.v1.Identity/Probe")
	called("/csi.v1.Identity/GetPluginInfo")
	select {
	case <-freed:
		t.Error("after a probe")
	case <-time.After(200 * time.Millisecond):
	}
	called("/csi.v1.Node/NodePublishVolume")
	waitFor("a call")
	called("/csi.v1.Node/NodeGetVolumeStats")
	waitFor("another call")
	for begun := time.Now(); time.Since(begun) < 200*time.Millisecond; time.Sleep(time.Millisecond) {
		called("/csi.v1.Node/NodePublishVolume") // without a pause
	}
	waitFor("the first of many calls")
	waitFor("more of them")
}
