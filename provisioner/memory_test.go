package main

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

func TestHeapGrowth(t *testing.T) {
	for inUse, want := range map[uint64]int{0: 800, 1 << 20: 800, 8 << 20: 400, 32 << 20: 100, 1 << 30: 100} {
		if got := heapGrowth(inUse); got != want {
			t.Errorf("with %d bytes in use by %d%%, not %d%%", inUse, got, want)
		}
	}
	runtime.GC()
	if inUse() == 0 {
		t.Error("nothing is in use")
	}
}

func TestAfterCollections(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var calls atomic.Int32
	afterCollections(ctx, func() { calls.Add(1) })
	for want := int32(1); want < 5; want++ {
		for end := time.Now().Add(time.Minute); calls.Load() < want; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d calls, want %d", calls.Load(), want)
			}
			runtime.GC()
		}
	}
	cancel()
	runtime.GC()
	runtime.GC()
	ended := calls.Load() // one may have been under way
	for range 5 {
		runtime.GC()
	}
	if calls.Load() > ended+1 {
		t.Errorf("%d calls after the end", calls.Load()-ended)
	}
}
