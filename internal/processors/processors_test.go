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
	want(2)
	early()
	want(1)
	first, second := Starting(), Starting()
	want(3)
	first()
	first()
	want(2)
	second()
	want(1)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { Starting()() })
	}
	all.Wait()
	want(1)
}
