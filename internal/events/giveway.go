package events

import (
	"context"
	"sync/atomic"
	"time"
)

const (
	// busyPause is what is between two events that are not urgent: 4 a second, in a burst of claims
	// one for each 20 to 80 claims that are made, at 8 requests each.
	busyPause = 250 * time.Millisecond
	// quiet is how long there is nothing new when a burst is over: with 20,000 volumes there, the
	// last of 1,000 claims is bound 16 s after it has its volume.
	quiet = 20 * time.Second
	// quietPause is busyPause from then on: 50 a second.
	quietPause = 20 * time.Millisecond
)

// giveWay is the pace of what is not urgent: it goes slowly as long as there is something new.
// But for news it may not be used concurrently.
type giveWay struct {
	until time.Time
	last  atomic.Pointer[time.Time] // there was something new
}

// news is to be called when there is something new to be sent.
func (g *giveWay) news() {
	now := time.Now()
	g.last.Store(&now)
}

// wait waits until the next may be sent.
func (g *giveWay) wait(ctx context.Context) error {
	timer := time.NewTimer(time.Until(g.until))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	pause := busyPause
	if last := g.last.Load(); last == nil || time.Since(*last) >= quiet {
		pause = quietPause
	}
	g.until = time.Now().Add(pause)
	return nil
}
