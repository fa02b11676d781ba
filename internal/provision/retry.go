package provision

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/client-go/util/workqueue"
)

// The pace of retries. A claim or volume that fails is tried again after firstRetry,
// then after twice as long each time, at most every lastRetry, for ever; all of
// them together retryRate times a second. A claim that can't be served as it is
// begins with refusedRetry: only a change of it or its class can help, and a
// change of the claim is acted on at once.
const (
	firstRetry   = 250 * time.Millisecond
	lastRetry    = 5 * time.Minute
	refusedRetry = time.Minute
	retryRate    = 100
	retryBurst   = 1000
)

// pace is the rate limiter of the controller's queues. Their items are the UIDs of
// claims and the names of volumes.
type pace struct {
	workqueue.TypedRateLimiter[any]
	refusals workqueue.TypedRateLimiter[any]

	mu      sync.Mutex
	refused map[any]bool // that the last failure was a refusal
}

func newPace() *pace {
	return &pace{
		TypedRateLimiter: workqueue.NewTypedMaxOfRateLimiter(
			workqueue.NewTypedItemExponentialFailureRateLimiter[any](firstRetry, lastRetry),
			&workqueue.TypedBucketRateLimiter[any]{Limiter: rate.NewLimiter(retryRate, retryBurst)},
		),
		refusals: workqueue.NewTypedItemExponentialFailureRateLimiter[any](refusedRetry, lastRetry),
		refused:  map[any]bool{},
	}
}

// refuse notes that the attempt that runs fails by the claim's or its class's fault.
func (p *pace) refuse(claim string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refused[claim] = true
}

// When returns how long item is to wait after a failure.
func (p *pace) When(item any) time.Duration {
	p.mu.Lock()
	refused := p.refused[item]
	delete(p.refused, item) // the next failure may be of another kind
	p.mu.Unlock()
	if refused {
		return p.refusals.When(item)
	}
	return p.TypedRateLimiter.When(item)
}

// Forget is called when item has succeeded.
func (p *pace) Forget(item any) {
	p.mu.Lock()
	delete(p.refused, item)
	p.mu.Unlock()
	p.refusals.Forget(item)
	p.TypedRateLimiter.Forget(item)
}
