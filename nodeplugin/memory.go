package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
)

// heapGrowth is by how much the heap may grow between two collections, in percent. The
// program is on every node and mostly waits: it lives on 1 MB, of which Go's own 100 makes
// 4 MB, and 50 makes 2. Less saves nothing: Go's sweeper lets it grow by 1 MB anyway. A call
// makes some 60 kB of garbage, so that there is one collection in 15 calls. There is
// no limit that a heap in use could meet, which would have Go collect all the time.
const heapGrowth = 50

// most is how many processors the program uses at a time: for each it keeps memory and threads,
// for 64 of them 7 MB more than for these. A call waits for mounts. It is more than one or two
// because each process that can't be started, for a disk or a scanner that hangs, holds one.
const most = 4

// spareMemory sets heapGrowth and most, unless whoever runs the program has set GOGC or
// GOMAXPROCS.
func spareMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(heapGrowth)
	}
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(min(runtime.GOMAXPROCS(0), most))
	}
}

// giveBackAfter is how long after a call what it and the next ones took is given back: Go alone
// would keep the most of it for minutes. It costs a collection, of a millisecond.
const giveBackAfter = 2 * time.Second

// giveBack gives memory back some time after the start and after calls, once for all calls of that
// time. called is to be told of each; end ends it. free does it.
func giveBack(after time.Duration, free func()) (called func(method string), end func()) {
	var waits atomic.Bool
	waits.Store(true)
	timer := time.AfterFunc(after, func() {
		waits.Store(false)
		free()
	})
	called = func(method string) {
		// Not for probes, of which there is no end.
		if strings.HasPrefix(method, "/"+csi.Node_ServiceDesc.ServiceName+"/") && waits.CompareAndSwap(false, true) {
			timer.Reset(after)
		}
	}
	return called, func() { timer.Stop() }
}
