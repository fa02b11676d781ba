package machine

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"sharevol.dev/sharevol/internal/testbed"
)

func TestMain(m *testing.M) {
	if testbed.InMachine() {
		os.Exit(Guest(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// The short form measures everything there is. What it measures is not looked at: nothing fails by slowness.
func TestShort(t *testing.T) {
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	dir := t.TempDir()
	rows, err := Run(ctx, Options{Short: true, Dir: dir, Log: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	areas := map[string]int{}
	for _, row := range rows {
		t.Logf("%+v, ratio %.2f", row, row.Ratio())
		areas[row.Area]++
		if row.Ours <= 0 || row.BaseName != "" && row.Base <= 0 {
			t.Errorf("not measured: %+v", row)
		}
	}
	for _, area := range Areas {
		if areas[area] == 0 {
			t.Errorf("no row of %s", area)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "machine.json")); err != nil || info.Size() == 0 {
		t.Errorf("no samples: %v", err)
	}
}

func TestUnknownArea(t *testing.T) {
	if _, err := Run(context.Background(), Options{Areas: []string{"nothing"}}); err == nil {
		t.Error("no error")
	}
}
