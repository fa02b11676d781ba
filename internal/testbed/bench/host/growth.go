package host

import (
	"context"
	"fmt"
	"time"

	"sharevol.dev/sharevol/internal/testbed/bench/report"
)

// rest is how long a program has nothing to do before its resident memory is that of an idle one: it gives back
// what the start took when that is done.
const rest = time.Minute

// The reach of resident memory, in MB, where the cluster has so many volumes.
var memoryReach = map[int]float64{0: 35, 10_000: 80}

// growth measures bursts, memory and start with more and more volumes that are there already.
func (l *lab) growth(ctx context.Context) ([]report.Row, error) {
	var rows []report.Row
	template, err := l.template(ctx)
	if err != nil {
		return nil, err
	}
	filled := 0
	for _, there := range append([]int{0}, l.sizes...) {
		if err := l.fill(ctx, template, filled, there); err != nil {
			return rows, err
		}
		filled = there
		if median, _ := l.samples.Median("ours", sized("burst", there), "PVs/s"); median == 0 { // not measured yet
			for run := range l.runs {
				for _, v := range l.alternating(run, l.ours, l.floor) {
					if err := l.round(ctx, v, run, there); err != nil {
						return rows, err
					}
				}
			}
		}
		if err := l.resting(ctx, there); err != nil {
			return rows, err
		}
		rows = append(rows, l.growthRows(there)...)
	}
	return rows, nil
}

// resting measures the memory of a program that has rested.
func (l *lab) resting(ctx context.Context, there int) error {
	_, err := l.with(ctx, l.ours, func(ctx context.Context) error {
		long := rest
		if l.options.Short {
			long = settled
		}
		l.options.Log("with %d volumes there: resting for %s", there, long)
		if err := sleep(ctx, long); err != nil {
			return err
		}
		return l.noteMemory(l.ours, sized("rest", there))
	})
	return err
}

func (l *lab) growthRows(there int) []report.Row {
	with := fmt.Sprintf(", %d there", there)
	compare := func(what, benchmark, unit string) report.Row {
		return l.samples.Compare("growth", what+with, sized(benchmark, there), unit, "ours", "floor")
	}
	resident, _ := l.samples.Median("ours", sized("rest", there), "resident-MB")
	after, _ := l.samples.Median("ours", sized("start", there), "resident-MB")
	peak, _ := l.samples.Median("ours", sized("rest", there), "peak-MB")
	memory := report.Row{
		Area: "growth", What: "resident, idle" + with, Ours: resident, Unit: "MB",
		Note: fmt.Sprintf("%.0f just after the start, %.0f at the most", after, peak),
	}.Only()
	if most, known := memoryReach[there]; known {
		memory = memory.Within(most)
	}
	return []report.Row{
		compare("PVs/s", "burst", "PVs/s").AtLeast(0.9), compare("bound/s", "burst", "bound/s").AtLeast(0.9),
		memory, compare("start until ready", "ready", "s"),
	}
}
