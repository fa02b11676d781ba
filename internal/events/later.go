package events

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/klog/v2"
)

const (
	// holdBegun is how long "Provisioning" waits: an attempt that has succeeded by then
	// is told in one event.
	holdBegun = time.Second
	// maxWaiting bounds the Normal events that wait, at some 2 kB each. Those beyond it are not sent.
	maxWaiting = 5000
	// maxWait bounds how long a warning waits: those beyond it are sent at once. It is less than
	// repeatInterval, after which an event is repeated that must be there then.
	maxWait = 30 * time.Second
	// succeededReason is that of what the controller library sends last.
	succeededReason = "ProvisioningSucceeded"
)

// retries are those of client-go's recorder, of what can't be sent.
var retries = wait.Backoff{Duration: 10 * time.Second, Factor: 1, Steps: 12}

// later sends events when there is time: in a burst of claims, or when a server has died
// that many wait for, they would take the API server's time from the work. Its methods may
// be called concurrently.
type later struct {
	send    func(context.Context, *v1.Event) error
	pace    func(context.Context) error // waits until one may be sent
	hold    time.Duration
	retries wait.Backoff
	room    chan struct{} // has one for each event that waits
	wake    chan struct{} // gets one when there is something new

	mu    sync.Mutex
	ready []*v1.Event
	held  []*held // "Provisioning", as they came
	begun map[types.UID]*held
}

// held is an event that waits for its time.
type held struct {
	event *v1.Event // nil if it is not to be sent any more
	due   time.Time
}

func newLater(send func(context.Context, *v1.Event) error, pace func(context.Context) error, hold time.Duration, room int) *later {
	return &later{
		send: send, pace: pace, hold: hold, retries: retries, begun: map[types.UID]*held{},
		room: make(chan struct{}, room), wake: make(chan struct{}, 1),
	}
}

// push has an event sent later, and returns false if too many wait already.
func (l *later) push(event *v1.Event) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	object := event.InvolvedObject.UID
	if h := l.begun[object]; h != nil && event.Reason == succeededReason {
		h.event = nil // and its room is that of this one
		delete(l.begun, object)
		if len(l.held) > 2*len(l.begun)+100 {
			l.held = slices.DeleteFunc(l.held, func(h *held) bool { return h.event == nil })
		}
	} else {
		select {
		case l.room <- struct{}{}:
		default:
			return false
		}
	}
	if event.Reason == provisioningReason {
		h := &held{event, time.Now().Add(l.hold)}
		l.held = append(l.held, h)
		l.begun[object] = h
	} else {
		l.ready = append(l.ready, event)
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return true
}

// run sends until ctx ends. What waits then is not sent.
func (l *later) run(ctx context.Context) {
	for {
		event, pause := l.next()
		switch {
		case event != nil:
			l.deliver(ctx, event)
			<-l.room
			continue
		case pause == 0:
			pause = time.Hour // there is nothing
		}
		timer := time.NewTimer(pause)
		select {
		case <-l.wake:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// next returns what is to be sent now, or how long nothing is: zero for until there is
// something new. What has begun gives way to all else: it may have ended meanwhile.
func (l *later) next() (*v1.Event, time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.ready) > 0 {
		event := l.ready[0]
		l.ready[0] = nil
		l.ready = l.ready[1:]
		return event, 0
	}
	for len(l.held) > 0 {
		h := l.held[0]
		if pause := time.Until(h.due); h.event != nil && pause > 0 {
			return nil, pause
		}
		l.held[0] = nil
		l.held = l.held[1:]
		if h.event == nil {
			continue
		}
		if object := h.event.InvolvedObject.UID; l.begun[object] == h {
			delete(l.begun, object)
		}
		return h.event, 0
	}
	return nil, 0
}

// deliver sends an event, and tries again while the API server can't be reached.
func (l *later) deliver(ctx context.Context, event *v1.Event) {
	var last error
	err := wait.ExponentialBackoffWithContext(ctx, l.retries, func(ctx context.Context) (bool, error) {
		if last = l.pace(ctx); last == nil {
			last = l.send(ctx, event)
		}
		var refused apierrors.APIStatus
		return last == nil || errors.As(last, &refused), nil
	})
	if last != nil && ctx.Err() == nil {
		klog.FromContext(ctx).V(2).Info("Could not send an event", "object", klog.KRef(event.InvolvedObject.Namespace, event.InvolvedObject.Name), "reason", event.Reason, "error", errors.Join(last, err).Error())
	}
}
