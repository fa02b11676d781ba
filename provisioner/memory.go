package main

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"sharevol.dev/sharevol/internal/processors"
)

const (
	// spareEvery is how often unused memory is given back, which costs a collection: for much
	// of what is given back Go would wait two minutes.
	spareEvery = 30 * time.Second
	// garbage is what may pile up between two collections. Go itself collects when there is as
	// much garbage as memory in use, which with few volumes is 10 MB: in a burst of claims a
	// sixth of the program's processor time went into that.
	garbage = 32 << 20
)

// few is how many processors the program uses at a time, from when its caches are filled
// on. A claim takes 1.3 ms of one, where its limits let 500 requests a second through: to
// use two took a sixth more.
const few = 1

// thrift has the program take less from then on when its caches are filled, until ctx ends.
func (p *program) thrift(ctx context.Context) {
	if !p.cluster.Filled(ctx) {
		return
	}
	if os.Getenv("GOMAXPROCS") == "" {
		processors.Use(few)
	}
	spareMemory(ctx)
}

// spareMemory gives back, until ctx ends, what filling the caches took, and then what looking
// at all that is in them, and each burst of claims, took: Go would keep the most of it. In
// between it lets garbage pile up, unless whoever runs the program has set GOGC.
func spareMemory(ctx context.Context) {
	if os.Getenv("GOGC") == "" {
		afterCollections(ctx, func() { debug.SetGCPercent(heapGrowth(inUse())) })
	}
	every := time.NewTicker(spareEvery)
	defer every.Stop()
	for {
		debug.FreeOSMemory()
		select {
		case <-every.C:
		case <-ctx.Done():
			return
		}
	}
}

// heapGrowth is by how much the heap may grow until the next collection, in percent of what
// is in use: by garbage, and by as much as is in use, as in Go, if that is more. (With less
// than 4 MB in use Go reckons with these 4.)
func heapGrowth(inUse uint64) int {
	const usual = 100 // Go's own
	return int(max(usual, garbage*100/max(inUse, 4<<20)))
}

// inUse is how many bytes Go's percentage is of: those of the heap that the last collection has
// left, and what it has looked through besides.
func inUse() (bytes uint64) {
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
	metrics.Read(samples)
	for _, sample := range samples {
		bytes += sample.Value.Uint64()
	}
	return bytes
}

// afterCollections calls do now and soon after each collection, until ctx ends.
func afterCollections(ctx context.Context, do func()) {
	if ctx.Err() != nil {
		return
	}
	do()
	// What nothing refers to goes with the next collection.
	runtime.AddCleanup(&struct{ _ *byte }{}, func(struct{}) { afterCollections(ctx, do) }, struct{}{})
}
