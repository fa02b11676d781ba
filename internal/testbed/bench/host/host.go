// Package host is the part of the bench that needs a control plane and no NFS: how fast claims are served and
// volumes deleted, beside a floor, and with many volumes there already. The share is a local folder, which the
// provisioner takes as premounted, so that what is measured is the program and the API server.
package host

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"sharevol.dev/sharevol/internal/testbed/bench/report"
)

// Areas are what Run can measure, in its order.
var Areas = []string{"burst", "idle", "delete", "spread", "growth"}

// Options of a run.
type Options struct {
	Short   bool     // one run with small numbers, to see that all works
	Dir     string   // an existing folder for the raw samples
	Runs    int      // of each variant; 5 if zero, or 1 if Short
	Areas   []string // those of Areas that are wanted; all if empty
	Profile bool     // write processor profiles of the provisioner and the API server, too
	Log     func(format string, args ...any)
}

// numbers say how much is measured.
type numbers struct {
	runs    int   // of each variant, alternating
	claims  int   // of a burst
	shipped int   // claims of a burst of the library's own defaults, which make two volumes a second
	single  int   // claims one at a time
	waiting int   // claims of the dead share
	sizes   []int // volumes that are there before a burst
}

var (
	long  = numbers{runs: 5, claims: 1000, shipped: 100, single: 100, waiting: 500, sizes: []int{10_000, 20_000}}
	short = numbers{runs: 1, claims: 50, shipped: 10, single: 5, waiting: 30, sizes: []int{100, 200}}
)

// Run measures and returns the rows. An error says that something does not work, not that it is slow; the rows
// are those that were there before it.
func Run(ctx context.Context, options Options) (rows []report.Row, err error) {
	l, err := newLab(ctx, options)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.close(err != nil)) }()
	wanted := func(areas ...string) bool {
		return len(options.Areas) == 0 || slices.ContainsFunc(areas, func(area string) bool { return slices.Contains(options.Areas, area) })
	}
	if err := l.warmUp(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("warm up: %w", err), l.cluster.Alive(), context.Cause(ctx))
	}
	for _, area := range []struct {
		wanted  bool
		measure func(context.Context) ([]report.Row, error)
	}{
		{wanted("burst", "delete"), func(ctx context.Context) ([]report.Row, error) { return l.bursts(ctx, wanted) }},
		{wanted("idle"), l.idle},
		{wanted("spread"), l.spread},
		{wanted("growth"), l.growth}, // the last: what it fills the cluster with stays
	} {
		if !area.wanted {
			continue
		}
		measured, err := area.measure(ctx)
		rows = append(rows, measured...)
		if err != nil {
			return rows, errors.Join(fmt.Errorf("measure: %w", err), l.cluster.Alive(), context.Cause(ctx))
		}
	}
	return rows, nil
}
