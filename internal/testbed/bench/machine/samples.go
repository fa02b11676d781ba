package machine

import "slices"

// mega makes MB of bytes, the million that image registries and disks count by.
const mega = 1e6

// sample is what one run measured of one thing: the machine's output has it as JSON.
type sample struct {
	Name   string    `json:"name"`
	Values []float64 `json:"values"`
}

// samples are the values of each run, by what was measured. Times are in milliseconds, sizes in MB.
type samples map[string][][]float64

func (s samples) add(name string, values ...float64) { s[name] = append(s[name], values) }

// median returns the middle one of the runs' medians, 0 without any.
func (s samples) median(name string) float64 { return s.quantile(name, 50) }

// quantile returns the middle one of what each run has at a percentage of its sorted values.
func (s samples) quantile(name string, percent int) float64 {
	var runs []float64
	for _, values := range s[name] {
		runs = append(runs, quantile(values, percent))
	}
	return quantile(runs, 50)
}

// quantile returns the value below which a percentage of the values are; the mean of the middle two is the
// median of an even number.
func quantile(values []float64, percent int) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if percent == 50 && n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[(n-1)*percent/100]
}
