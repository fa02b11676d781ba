package processors

import (
	"runtime"
	"sync"
	"testing"
)

func TestEachProcessThatIsStartedHasAProcessor(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	t.Cleanup(func() {
		few = 0
		runtime.GOMAXPROCS(before)
	})
	want := func(processors int) {
		t.Helper()
		if got := runtime.GOMAXPROCS(0); got != processors {
			t.Errorf("%d processors, want %d", got, processors)
		}
	}
	early := Starting()
	want(before) // nobody has asked for few
	Use(1)
	want(1 + spare)
	early()
	want(1)
	first, second := Starting(), Starting()
	want(1 + spare)
	first()
	first()
	want(1 + spare)
	second()
	want(1)
	var ends []func()
	for range spare + 2 {
		ends = append(ends, Starting())
	}
	want(1 + spare + 2)
	for _, end := range ends {
		end()
	}
	want(1)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { Starting()() })
	}
	all.Wait()
	want(1)
}
