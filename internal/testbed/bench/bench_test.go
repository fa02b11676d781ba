package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sharevol.dev/sharevol/internal/testbed"
	"sharevol.dev/sharevol/internal/testbed/bench/host"
	"sharevol.dev/sharevol/internal/testbed/bench/machine"
)

// within bounds the short form, with everything to be built first.
const within = 45 * time.Minute

func TestMain(m *testing.M) {
	if testbed.InMachine() {
		os.Exit(machine.Guest(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// The short form works, and has a line for every area. How fast anything was is not looked at.
func TestShort(t *testing.T) {
	ctx, cancel := context.WithTimeoutCause(t.Context(), within, fmt.Errorf("not done after %s", within))
	defer cancel()
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	var out bytes.Buffer
	err := run(ctx, []string{"-short"}, &out)
	t.Logf("%s", &out)
	if err != nil {
		t.Fatal(err)
	}
	for _, area := range slices.Concat(host.Areas, machine.Areas) {
		if !strings.Contains(out.String(), "\n"+area+" ") {
			t.Errorf("nothing about %s", area)
		}
	}
}

func TestBadCommandLine(t *testing.T) {
	err := run(t.Context(), []string{"-only=burst,fun,idle,games", "more"}, &bytes.Buffer{})
	for _, want := range []string{`"fun"`, `"games"`, `"more"`, "spread"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %s", err, want)
		}
	}
}
