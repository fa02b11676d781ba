package events

import (
	"context"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
)

const (
	// idleTimes is for how many times as long as the API server took for an event nothing is
	// sent then. One that has little else to do takes some 3 ms, which makes 7 events a second;
	// one that is working off a burst of claims takes longer.
	idleTimes = 50
	// maxIdle bounds that: what waits is to be told some time.
	maxIdle = time.Second
	// quiet is how long there is nothing new when a burst is over: with 20,000 volumes there, the
	// last of 1,000 claims is bound 16 s after it has its volume.
	quiet = 20 * time.Second
	// quietTimes is idleTimes from then on: 55 events a second.
	quietTimes = 5
)

// giveWay is the pace of what is sent when the API server has time: by how long it takes
// for it, and by how long nothing has happened. But for news it may not be used concurrently.
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
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// timing returns send with the time noted that it takes.
func (g *giveWay) timing(send func(context.Context, *v1.Event) error) func(context.Context, *v1.Event) error {
	return func(ctx context.Context, event *v1.Event) error {
		began := time.Now()
		err := send(ctx, event)
		times := time.Duration(idleTimes)
		if last := g.last.Load(); last == nil || time.Since(*last) >= quiet {
			times = quietTimes
		}
		g.until = time.Now().Add(min(times*time.Since(began), maxIdle))
		return err
	}
}
