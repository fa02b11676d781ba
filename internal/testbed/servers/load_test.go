package servers

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// figures say how a server's claims fared.
type figures struct {
	perSecond float64         // claims made and deleted
	made      []time.Duration // from each claim's creation until it was bound, sorted
	gone      []time.Duration // from each claim's deletion until its volume was gone, sorted
	// write is the median time of a write to the API server meanwhile, by somebody
	// else: how fast the machine was, which shares its processors with others.
	write time.Duration
}

// perWrite is how many claims were made and deleted in the time of a thousand writes
// to the API server. In it a busy machine cancels out, and a wait for something
// else than the processor shows.
func (f figures) perWrite() float64 { return 1000 * f.perSecond * f.write.Seconds() }

func (f figures) String() string {
	return fmt.Sprintf("%.1f/s, %.1f per 1000 writes of %s, bound after p50 %s p90 %s, gone after p50 %s p90 %s", f.perSecond, f.perWrite(), ms(f.write),
		ms(quantile(f.made, 50)), ms(quantile(f.made, 90)), ms(quantile(f.gone, 50)), ms(quantile(f.gone, 90)))
}

func ms(d time.Duration) string { return d.Round(time.Millisecond).String() }

// quantile returns the value below which percent of the sorted values are.
func quantile(sorted []time.Duration, percent int) time.Duration {
	return sorted[(len(sorted)-1)*percent/100]
}

// load makes and deletes n claims of a class, width at a time, each as soon as the
// one before it is done with.
func (w *world) load(t *testing.T, class, prefix string, n, width int) figures {
	t.Helper()
	made, gone := make([]time.Duration, n), make([]time.Duration, n)
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(width)
	yardstick := w.yardstick(t)
	start := time.Now()
	for i := range n {
		group.Go(func() (err error) {
			made[i], gone[i], err = w.once(ctx, class, fmt.Sprintf("%s-%d", prefix, i))
			return err
		})
	}
	check(t, group.Wait())
	took := time.Since(start)
	write := yardstick()
	slices.Sort(made)
	slices.Sort(gone)
	return figures{perSecond: float64(n) / took.Seconds(), made: made, gone: gone, write: write}
}

// once makes a claim, waits until it is bound, deletes it and waits until its volume
// is gone.
func (w *world) once(ctx context.Context, class, name string) (made, gone time.Duration, err error) {
	start := time.Now()
	if err := w.claim(ctx, name, class); err != nil {
		return 0, 0, err
	}
	volumes, err := w.allBound(ctx, recovered, name)
	made = time.Since(start)
	if err != nil {
		return made, 0, err
	}
	start = time.Now()
	if err := w.delete(ctx, name); err != nil {
		return made, 0, err
	}
	err = w.allGone(ctx, recovered, volumes...)
	return made, time.Since(start), err
}

// yardstick writes to the API server now and then, until the returned function is
// called, which returns the median time of a write.
func (w *world) yardstick(t *testing.T) (end func() time.Duration) {
	maps := w.client.CoreV1().ConfigMaps(metav1.NamespaceDefault)
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "yardstick"}}
	if _, err := maps.Create(t.Context(), object, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var times []time.Duration
	var running sync.WaitGroup
	running.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			object.Data = map[string]string{"number": fmt.Sprint(i)} // an update without a change is no write
			start := time.Now()
			if _, err := maps.Update(t.Context(), object, metav1.UpdateOptions{}); err == nil {
				times = append(times, time.Since(start))
			}
			time.Sleep(yardstickPause)
		}
	})
	return func() time.Duration {
		cancel()
		running.Wait()
		slices.Sort(times)
		return quantile(times, 50)
	}
}

// median returns the middle one of what f gives for each round.
func median[T ~float64 | ~int64](rounds []figures, f func(figures) T) T {
	values := make([]T, 0, len(rounds))
	for _, round := range rounds {
		values = append(values, f(round))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// compare returns how B fared alone and beside a dead server, a line each, and what
// of it says that the dead one is felt.
func compare(alone, beside []figures) (report, felt []string) {
	ratio := func(f func(figures) float64) float64 { return median(beside, f) / median(alone, f) }
	perSecond, perWrite := ratio(func(f figures) float64 { return f.perSecond }), ratio(figures.perWrite)
	report = append(report, fmt.Sprintf("throughput beside a dead server / alone: %.2f, by the machine's speed %.2f", perSecond, perWrite))
	if perSecond < leastThroughput && perWrite < leastThroughput {
		felt = append(felt, report[0])
	}
	speed := ratio(func(f figures) float64 { return f.write.Seconds() })
	for _, kind := range []struct {
		name string
		of   func(figures) []time.Duration
	}{
		{"bound", func(f figures) []time.Duration { return f.made }},
		{"gone", func(f figures) []time.Duration { return f.gone }},
	} {
		for _, percent := range []int{50, 90} {
			at := func(f figures) time.Duration { return quantile(kind.of(f), percent) }
			before, now := median(alone, at), median(beside, at)
			line := fmt.Sprintf("time until %s, p%d: %s alone, %s beside a dead server", kind.name, percent, ms(before), ms(now))
			report = append(report, line)
			if now.Seconds() > before.Seconds()*slower*max(speed, 1)+slack.Seconds() {
				felt = append(felt, line)
			}
		}
	}
	return report, felt
}
