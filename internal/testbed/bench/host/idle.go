package host

import (
	"context"
	"slices"
	"time"

	"sharevol.dev/sharevol/internal/testbed/bench/report"
)

// pause is between two claims one at a time: what the one before has caused is over then.
const pause = 100 * time.Millisecond

// idle measures how long one claim takes that nothing else waits with.
func (l *lab) idle(ctx context.Context) ([]report.Row, error) {
	for run := range l.runs {
		for _, v := range l.alternating(run, l.ours, l.floor) {
			if err := l.idleRound(ctx, v); err != nil {
				return nil, err
			}
		}
	}
	row := func(what, unit string) report.Row {
		return l.samples.Compare("idle", what, "idle", unit, "ours", "floor")
	}
	scale := func(r report.Row) report.Row { r.Unit = "ms"; return r }
	return []report.Row{
		scale(row("create to PV, p50", "PV-p50-ms").AtMost(1.3)), scale(row("create to PV, p99", "PV-p99-ms")),
		scale(row("create to Bound, p50", "bound-p50-ms").AtMost(1.3)), scale(row("create to Bound, p99", "bound-p99-ms")),
	}, nil
}

func (l *lab) idleRound(ctx context.Context, v *variant) error {
	ctx, cancel := bounded(ctx, "idle")
	defer cancel()
	o, err := l.observe(ctx)
	if err != nil {
		return err
	}
	defer o.stop()
	_, err = l.with(ctx, v, func(ctx context.Context) error {
		names := l.names(l.single + 1)
		var toMade, toBound []time.Duration
		for i, name := range names {
			began := time.Now()
			if err := l.claim(liveClass)(ctx, name); err != nil {
				return err
			}
			madeAt, err := o.all(ctx, made, []string{name})
			if err != nil {
				return err
			}
			boundAt, err := o.all(ctx, bound, []string{name})
			if err != nil {
				return err
			}
			if i > 0 { // the first opens the share and connections
				toMade, toBound = append(toMade, madeAt.Sub(began)), append(toBound, boundAt.Sub(began))
			}
			if err := sleep(ctx, pause); err != nil {
				return err
			}
		}
		if err := each(ctx, names, l.unclaim); err != nil {
			return err
		}
		if _, err := o.all(ctx, gone, names); err != nil {
			return err
		}
		l.options.Log("%s idle: %.0f ms to the PV, %.0f ms to Bound", v.name, percentile(toMade, 50), percentile(toBound, 50))
		return l.samples.Add(v.name, "idle", l.single, map[string]float64{
			"PV-p50-ms": percentile(toMade, 50), "PV-p99-ms": percentile(toMade, 99),
			"bound-p50-ms": percentile(toBound, 50), "bound-p99-ms": percentile(toBound, 99),
		})
	})
	return err
}

// percentile returns that of durations, in milliseconds: the least that so many percent do not exceed.
func percentile(durations []time.Duration, percent int) float64 {
	sorted := slices.Sorted(slices.Values(durations))
	at := (len(sorted)*percent + 99) / 100
	return float64(sorted[max(at, 1)-1]) / float64(time.Millisecond)
}
