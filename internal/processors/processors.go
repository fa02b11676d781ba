// Package processors has a program use few processors at a time, where that is less work:
// one that works in small steps, each begun by an answer from elsewhere, would wake up
// another processor for each.
package processors

import (
	"runtime"
	"sync"
)

var (
	mu       sync.Mutex
	few      int // zero as long as nobody has asked for few
	starting int
)

// Use has the program use that many processors from now on, but for Starting. It may be
// called concurrently.
func Use(processors int) {
	mu.Lock()
	defer mu.Unlock()
	few = processors
	set()
}

// Starting is to be called before a process is started, and done when it was. Until the new
// process runs its program, Go's scheduler can't take the processor from the goroutine that
// started it: if a disk hangs, or a scanner looks at the program first, for as long as that
// takes. The others must go on meanwhile. Both may be called concurrently, done more than once.
func Starting() (done func()) {
	add(1)
	return sync.OnceFunc(func() { add(-1) })
}

func add(n int) {
	mu.Lock()
	defer mu.Unlock()
	starting += n
	set()
}

// spare is how many processors there are for processes that are being started. To change their
// number waits for each that one has: it must not happen with the second.
const spare = 4

// set has a processor for each process that is being started, besides the few.
func set() {
	want := few
	if starting > 0 {
		want += max(starting, spare)
	}
	if few > 0 && want != runtime.GOMAXPROCS(0) {
		runtime.GOMAXPROCS(want)
	}
}
