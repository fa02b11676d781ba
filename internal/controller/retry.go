package controller

import (
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/client-go/util/workqueue"

	"sharevol.dev/sharevol/internal/provision"
	"sharevol.dev/sharevol/internal/share"
)

// The pace of retries. A claim or volume that fails is tried again after firstRetry,
// then after twice as long each time, at most every lastRetry, for ever; all of
// them together retryRate times a second. A claim that can't be served as it is
// begins with refusedRetry: only a change of it or its class can help, and a
// change of the claim is acted on at once. (It is clearly longer than the minute in
// which the same event is not sent again, so that each such retry counts in it.) What waits
// for a share that is unavailable goes on with that: it is tried at once when the share is back,
// and in between in case that its class or secret names another by now. One whose share was
// busy waits for busyRetry at most: nothing is wrong with it.
const (
	firstRetry   = 250 * time.Millisecond
	lastRetry    = 5 * time.Minute
	refusedRetry = 65 * time.Second
	busyRetry    = 5 * time.Second
	retryRate    = 100
	retryBurst   = 1000
)

// retryPolicy is the rate limiter of the controller's queues. Their items are the UIDs of
// claims and the names of volumes.
type retryPolicy struct {
	workqueue.TypedRateLimiter[any]
	// The special kinds have their own, so that they count nothing and take nothing from
	// what all share: thousands may wait for one busy share.
	refusals, waits workqueue.TypedRateLimiter[any]

	mu   sync.Mutex
	kind map[any]failure // of the attempt that has just failed, if it is a special one
}

// failure is a kind of failure that has a pace of its own.
type failure int

const (
	invalid     failure = iota + 1 // by the claim's or its class's fault
	unavailable                    // the share is unavailable
	throttled                      // the share had no time for it
)

// limits are what the controllers of all names share.
type limits struct{ retries, saves *rate.Limiter }

func newLimits() limits {
	return limits{rate.NewLimiter(retryRate, retryBurst), rate.NewLimiter(retryRate, retryBurst)}
}

// newRetryPolicy returns the policy of one controller, whose retries are within limit.
func newRetryPolicy(limit *rate.Limiter) *retryPolicy {
	return &retryPolicy{
		TypedRateLimiter: workqueue.NewTypedMaxOfRateLimiter(
			workqueue.NewTypedItemExponentialFailureRateLimiter[any](firstRetry, lastRetry),
			&workqueue.TypedBucketRateLimiter[any]{Limiter: limit},
		),
		refusals: workqueue.NewTypedItemExponentialFailureRateLimiter[any](refusedRetry, lastRetry),
		waits:    workqueue.NewTypedItemExponentialFailureRateLimiter[any](firstRetry, busyRetry),
		kind:     map[any]failure{},
	}
}

// record says how the attempt for item that runs has ended.
func (p *retryPolicy) record(item string, err error) {
	var kind failure
	switch {
	case errors.Is(err, provision.ErrInvalid):
		kind = invalid
	case errors.Is(err, share.ErrBusy):
		kind = throttled
	case errors.Is(err, share.ErrUnavailable):
		kind = unavailable
	default:
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kind[item] = kind
}

// When returns how long item is to wait after a failure.
func (p *retryPolicy) When(item any) time.Duration {
	p.mu.Lock()
	kind := p.kind[item]
	delete(p.kind, item) // the next failure may be of another kind
	p.mu.Unlock()
	switch kind {
	case invalid:
		return p.refusals.When(item)
	case unavailable:
		// Scattered: hundreds at once would take the program's time from others.
		return refusedRetry + rand.N(refusedRetry/2)
	case throttled:
		// Scattered: those that were sent away together would come back together, and
		// all but a few be sent away again. (1000 operations of 110 ms took 23 s so, and
		// 10 minutes in step.)
		wait := p.waits.When(item)
		return wait/2 + rand.N(wait/2)
	}
	return min(p.TypedRateLimiter.When(item), lastRetry)
}

// Forget is called when item has succeeded.
func (p *retryPolicy) Forget(item any) {
	p.mu.Lock()
	delete(p.kind, item)
	p.mu.Unlock()
	p.refusals.Forget(item)
	p.waits.Forget(item)
	p.TypedRateLimiter.Forget(item)
}
