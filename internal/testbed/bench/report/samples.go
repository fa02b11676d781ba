package report

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/perf/benchmath"
)

// confidence is that of a range, which five runs can give.
const confidence = 0.9

// Samples keeps what was measured, run by run, and writes it into a folder in the format of Go's benchmarks,
// one file for each variant: "benchstat ours=ours.txt floor=floor.txt" compares them. It may be used concurrently.
type Samples struct {
	dir    string
	mu     sync.Mutex
	values map[string][]float64
}

// NewSamples returns Samples in a folder that exists.
func NewSamples(dir string) *Samples { return &Samples{dir: dir, values: map[string][]float64{}} }

// Add adds one run of a benchmark with a variant ("ours", "floor"): how many operations it had, and its values
// by their unit ("PVs/s"). Names and units have no spaces.
func (s *Samples) Add(variant, benchmark string, operations int, values map[string]float64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	line := fmt.Sprintf("Benchmark%s %d", strings.ToUpper(benchmark[:1])+benchmark[1:], operations)
	for _, unit := range slices.Sorted(maps.Keys(values)) {
		line += fmt.Sprintf(" %.6g %s", values[unit], unit)
		id := variant + " " + benchmark + " " + unit
		s.values[id] = append(s.values[id], values[unit])
	}
	file, err := os.OpenFile(filepath.Join(s.dir, variant+".txt"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("write samples: %w", err)
	}
	_, err = fmt.Fprintln(file, line)
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("write samples: %w", err)
	}
	return nil
}

// Median returns the median of what a variant's runs of a benchmark had in a unit, and where it lies with 90 %
// confidence ("±3%") or, where so few runs can't tell, of how many it is. Without runs the median is zero.
func (s *Samples) Median(variant, benchmark, unit string) (median float64, within string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	values := slices.Clone(s.values[variant+" "+benchmark+" "+unit])
	if len(values) == 0 {
		return 0, ""
	}
	summary := benchmath.AssumeNothing.Summary(benchmath.NewSample(values, &benchmath.DefaultThresholds), confidence)
	if math.IsInf(summary.Lo, 0) || math.IsInf(summary.Hi, 0) {
		return summary.Center, fmt.Sprintf("of %d", len(values))
	}
	return summary.Center, strings.ReplaceAll(summary.PctRangeString(), " ", "")
}

// Compare returns a row with the medians of two variants' runs of a benchmark, without a reach, and a note of
// how sure they are.
func (s *Samples) Compare(area, what, benchmark, unit, variant, base string) Row {
	ours, oursWithin := s.Median(variant, benchmark, unit)
	theirs, theirsWithin := s.Median(base, benchmark, unit)
	return Row{
		Area: area, What: what, Ours: ours, Base: theirs, Unit: unit, BaseName: base,
		Note: fmt.Sprintf("%s, %s", oursWithin, theirsWithin),
	}.Only()
}
