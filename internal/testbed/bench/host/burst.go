package host

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sharevol.dev/sharevol/internal/testbed/bench/report"
	"sharevol.dev/sharevol/internal/testbed/guest"
)

// The variants of which there is no program.
const binder = "binder"

// poll is how often something is looked at of which nothing tells.
const poll = 300 * time.Millisecond

// bursts measures bursts of claims, and their deletion all at once, on a cluster with nothing else in it.
func (l *lab) bursts(ctx context.Context, wanted func(...string) bool) ([]report.Row, error) {
	for run := range l.runs {
		for _, v := range l.alternating(run, l.ours, l.floor) {
			if err := l.round(ctx, v, run, 0); err != nil {
				return nil, err
			}
		}
		if !wanted("burst") {
			continue
		}
		if err := l.shippedRound(ctx, run); err != nil {
			return nil, err
		}
		if err := l.binderRound(ctx, run); err != nil {
			return nil, err
		}
	}
	var rows []report.Row
	if wanted("burst") {
		name := sized("burst", 0)
		rows = append(rows,
			l.samples.Compare("burst", "PVs/s", name, "PVs/s", "ours", "floor").AtLeast(0.9),
			l.samples.Compare("burst", "bound/s", name, "bound/s", "ours", "floor").AtLeast(0.95),
			l.samples.Compare("burst", "PVs/s", name, "PVs/s", "ours", "shipped").AtLeast(35),
			l.samples.Compare("burst", "bound/s", name, "bound/s", "ours", binder),
		)
	}
	if wanted("delete") {
		rows = append(rows, l.samples.Compare("delete", "PVs/s", sized("delete", 0), "PVs/s", "ours", "floor").AtLeast(0.9))
	}
	return rows, nil
}

// sized names a benchmark with some number of volumes there already.
func sized(name string, there int) string { return fmt.Sprintf("%s/there=%d", name, there) }

// alternating returns the variants, each second time the other way round, so that none always has the
// other's remains to live with.
func (l *lab) alternating(run int, variants ...*variant) []*variant {
	if run%2 == 1 {
		slices.Reverse(variants)
	}
	return variants
}

// round measures one burst and one deletion with a program that it starts and stops.
func (l *lab) round(ctx context.Context, v *variant, run, there int) error {
	o, err := l.observe(ctx)
	if err != nil {
		return err
	}
	defer o.stop()
	started, err := l.with(ctx, v, func(ctx context.Context) error {
		if err := l.noteMemory(v, sized("start", there)); err != nil {
			return err
		}
		names := l.names(l.claims)
		if err := l.burst(ctx, o, v, run, sized("burst", there), names); err != nil {
			return err
		}
		if err := sleep(ctx, settled); err != nil { // for the controller manager; our events come behind, for half a minute
			return err
		}
		return l.remove(ctx, o, v, run, sized("delete", there), names)
	})
	if err != nil {
		return err
	}
	return l.samples.Add(v.name, sized("ready", there), 1, map[string]float64{"s": started.Seconds()})
}

// warmUp runs a burst that is not measured: the first finds no connections, and nothing in the programs'
// caches.
func (l *lab) warmUp(ctx context.Context) error {
	unmeasured := *l.floor
	unmeasured.name = "warm-up"
	return l.round(ctx, &unmeasured, 0, 0)
}

// burst makes claims of the live share at once, and measures how fast they get their volumes and are bound.
func (l *lab) burst(ctx context.Context, o *observer, v *variant, run int, benchmark string, names []string) error {
	ctx, cancel := bounded(ctx, benchmark)
	defer cancel()
	cost, err := l.meter(ctx, v, run, benchmark)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := each(ctx, names, l.claim(liveClass)); err != nil {
		return err
	}
	created := time.Now()
	lastMade, err := o.all(ctx, made, names)
	if err != nil {
		return err
	}
	lastBound, err := o.all(ctx, bound, names)
	if err != nil {
		return err
	}
	values := map[string]float64{"claims/s": rate(names, began, created), "PVs/s": rate(names, began, lastMade), "bound/s": rate(names, began, lastBound)}
	l.options.Log("%s %s: %.0f PVs/s, %.1f bound/s", v.name, benchmark, values["PVs/s"], values["bound/s"])
	return cost.add(ctx, len(names), values)
}

// remove deletes claims at once, and measures how fast their volumes go.
func (l *lab) remove(ctx context.Context, o *observer, v *variant, run int, benchmark string, names []string) error {
	ctx, cancel := bounded(ctx, benchmark)
	defer cancel()
	cost, err := l.meter(ctx, v, run, benchmark)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := each(ctx, names, l.unclaim); err != nil {
		return err
	}
	lastGone, err := o.all(ctx, gone, names)
	if err != nil {
		return err
	}
	o.forget()
	values := map[string]float64{"PVs/s": rate(names, began, lastGone)}
	l.options.Log("%s %s: %.0f PVs/s", v.name, benchmark, values["PVs/s"])
	return cost.add(ctx, len(names), values)
}

func rate(names []string, from, to time.Time) float64 {
	return float64(len(names)) / to.Sub(from).Seconds()
}

// shippedRound measures a burst that the library serves with its defaults.
func (l *lab) shippedRound(ctx context.Context, run int) error {
	o, err := l.observe(ctx)
	if err != nil {
		return err
	}
	defer o.stop()
	names := l.names(l.shipped)
	if _, err := l.with(ctx, l.library, func(ctx context.Context) error {
		return l.burst(ctx, o, l.library, run, sized("burst", 0), names)
	}); err != nil {
		return err
	}
	if err := each(ctx, names, l.unclaim); err != nil {
		return err
	}
	return l.sweep(ctx, o, names)
}

// binderRound measures how fast claims are bound whose volumes are there already.
func (l *lab) binderRound(ctx context.Context, run int) error {
	ctx, cancel := bounded(ctx, binder)
	defer cancel()
	o, err := l.observe(ctx)
	if err != nil {
		return err
	}
	defer o.stop()
	names := l.names(l.claims)
	if err := each(ctx, names, l.byHand); err != nil {
		return err
	}
	if err := guest.WaitFor(ctx, "the volumes made by hand", poll, l.available(len(names))); err != nil {
		return err
	}
	cost, err := l.meter(ctx, nil, run, sized("burst", 0))
	if err != nil {
		return err
	}
	began := time.Now()
	if err := each(ctx, names, l.claim(handClass)); err != nil {
		return err
	}
	last, err := o.all(ctx, bound, names)
	if err != nil {
		return err
	}
	if err := cost.add(ctx, len(names), map[string]float64{"bound/s": rate(names, began, last)}); err != nil {
		return err
	}
	l.options.Log("%s: %.1f bound/s", binder, rate(names, began, last))
	if err := each(ctx, names, l.unclaim); err != nil {
		return err
	}
	return l.sweep(ctx, o, names)
}

// available checks that the binder knows of all volumes made by hand.
func (l *lab) available(want int) guest.Check {
	return func(ctx context.Context) (bool, string, error) {
		volumes, err := l.client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, "", err
		}
		there := 0
		for i := range volumes.Items {
			if volumes.Items[i].Spec.StorageClassName == handClass && volumes.Items[i].Status.Phase == corev1.VolumeAvailable {
				there++
			}
		}
		return there == want, fmt.Sprintf("%d of %d", there, want), nil
	}
}
