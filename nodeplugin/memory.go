package main

import (
	"os"
	"runtime/debug"
)

// heapGrowth is by how much the heap may grow between two collections, in percent. The
// program is on every node and mostly waits: it lives on 1 MB, of which Go's own 100 makes
// 4 MB, and 50 makes 2. Less saves nothing: Go's sweeper lets it grow by 1 MB anyway. A call
// makes some 60 kB of garbage, so that there is one collection in 15 calls. There is
// no limit that a heap in use could meet, which would have Go collect all the time.
const heapGrowth = 50

// spareMemory sets heapGrowth, unless whoever runs the program has set GOGC.
func spareMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(heapGrowth)
	}
}
