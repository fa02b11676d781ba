package host

import (
	"testing"
	"time"
)

func TestPercentile(t *testing.T) {
	var durations []time.Duration
	for i := 100; i > 0; i-- {
		durations = append(durations, time.Duration(i)*time.Millisecond)
	}
	for percent, want := range map[int]float64{0: 1, 1: 1, 50: 50, 99: 99, 100: 100} {
		if got := percentile(durations, percent); got != want {
			t.Errorf("%d%%: %v", percent, got)
		}
	}
	if got := percentile(durations[:1], 50); got != 100 {
		t.Errorf("of one: %v", got)
	}
}

// The two variants of a pair take turns at being the first.
func TestAlternating(t *testing.T) {
	a, b := &variant{name: "a"}, &variant{name: "b"}
	l := &lab{}
	for run, want := range []string{"ab", "ba", "ab"} {
		if got := l.alternating(run, a, b); got[0].name+got[1].name != want {
			t.Errorf("run %d: %s%s", run, got[0].name, got[1].name)
		}
	}
}
