package events

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
)

const (
	// idleTimes is for how many times as long as the API server took for an event nothing is
	// sent then. One that has nothing else to do takes some 3 ms, which makes 7 events a second;
	// one that is working off a burst of claims takes ten times that.
	idleTimes = 50
	// maxIdle bounds that: what waits is to be told some time.
	maxIdle = time.Second
)

// giveWay is the pace of what is sent when the API server has time: by how long it takes
// for it. It may not be used concurrently.
type giveWay struct{ until time.Time }

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
		g.until = time.Now().Add(min(idleTimes*time.Since(began), maxIdle))
		return err
	}
}
