// Package events bounds what the controllers' events cost the API server.
//
// The controller library sends a Normal event "Provisioning" at the start of each attempt and a
// Warning at the end of each that fails: with a dead NFS server and a thousand claims that wait for
// it, most of what the API server would get to do. client-go's recorder only turns repetitions into
// patches, one request each.
package events

import (
	"context"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/utils/lru"
)

const (
	// An event that equals one sent less than repeatInterval ago is dropped.
	repeatInterval = time.Minute
	// A warning that equals one sent less than refreshInterval ago does not wait: a thousand such would leave no room
	// for new ones. Later it does: the API server deletes an event that is not repeated for an hour.
	refreshInterval = 10 * time.Minute
	// A warning older than maxAge is dropped: it may be false by now. If not, the next attempt sends it.
	maxAge = time.Minute
	// maxSent bounds the events known to have been sent, at some 700 bytes each. client-go's
	// recorder counts the repetitions of as many.
	maxSent = 4096
)

// Budget limits the events that are sent.
type Budget struct{ Normal, Warnings flowcontrol.RateLimiter }

// Limit returns client with its events sent through eventClient, within the budget, when an event
// recorder (client-go's tools/record) sends them:
//
//   - An event that equals one of the last minute in object, type, reason and message is dropped.
//   - A Normal event is sent at once or, without budget, dropped; the Normal event "Provisioning" always is.
//   - A warning waits for budget in the recorder's own goroutine until it is a minute old, or ctx ends; one that equals
//     one of the last 10 minutes does not wait. A recorder holds 1,000 events, "Provisioning" among them: with a
//     budget of 25 a second, 500 warnings at once are sent in 20 s. The recorder drops more, and the next attempts
//     send them.
//
// What is dropped counts as sent: the recorder goes on counting, and the next repetition has the full count. The
// recorder retries what does not reach the API server. (On its own it lets through the first 25 events of a type about
// an object, and then one each 5 minutes, and counts all that it has room for.)
//
// Everything else goes to client, or eventClient, unchanged.
func Limit(ctx context.Context, client, eventClient kubernetes.Interface, budget Budget) kubernetes.Interface {
	l := &limiter{sent: lru.New(maxSent), admit: func(event *v1.Event, urgent bool) bool {
		switch {
		case ctx.Err() != nil:
			return false
		case event.Type == v1.EventTypeNormal:
			return event.Reason != "Provisioning" && budget.Normal.TryAccept()
		case time.Since(event.LastTimestamp.Time) >= maxAge:
			return false
		case urgent:
			return budget.Warnings.Wait(ctx) == nil
		}
		return budget.Warnings.TryAccept()
	}}
	return limitedClient{Interface: client, eventClient: eventClient, limiter: l}
}

type limitedClient struct {
	kubernetes.Interface
	eventClient kubernetes.Interface
	limiter     *limiter
}

func (c limitedClient) CoreV1() corev1.CoreV1Interface {
	return limitedCore{CoreV1Interface: c.Interface.CoreV1(), client: c}
}

type limitedCore struct {
	corev1.CoreV1Interface
	client limitedClient
}

func (c limitedCore) Events(namespace string) corev1.EventInterface {
	return limitedEvents{EventInterface: c.client.eventClient.CoreV1().Events(namespace), limiter: c.client.limiter}
}

// limitedEvents limits the two methods that a recorder calls. They come without a context.
type limitedEvents struct {
	corev1.EventInterface
	limiter *limiter
}

// CreateWithEventNamespace sends an event that is new to the recorder.
func (e limitedEvents) CreateWithEventNamespace(event *v1.Event) (*v1.Event, error) {
	return e.limiter.send(event, func() (*v1.Event, error) {
		return e.EventInterface.CreateWithEventNamespaceWithContext(context.Background(), event)
	})
}

// PatchWithEventNamespace sends an event that the recorder has sent before, with the count of its repetitions.
func (e limitedEvents) PatchWithEventNamespace(event *v1.Event, data []byte) (*v1.Event, error) {
	return e.limiter.send(event, func() (*v1.Event, error) {
		return e.EventInterface.PatchWithEventNamespaceWithContext(context.Background(), event, data)
	})
}

// limiter lets one event at a time through, for all recorders together.
type limiter struct {
	admit func(event *v1.Event, urgent bool) bool // whether there is budget; an urgent warning waits for that

	mu   sync.Mutex
	sent *lru.Cache // when an identity was sent last
}

// identity is what makes two events the same.
type identity struct {
	object                v1.ObjectReference
	kind, reason, message string
}

func (l *limiter) send(event *v1.Event, request func() (*v1.Event, error)) (*v1.Event, error) {
	same := identity{event.InvolvedObject, event.Type, event.Reason, event.Message}
	same.object.ResourceVersion = "" // it changes with every attempt
	l.mu.Lock()
	defer l.mu.Unlock()
	var last time.Time
	if at, found := l.sent.Get(same); found {
		last = at.(time.Time)
	}
	if ago := time.Since(last); ago < repeatInterval || !l.admit(event, ago >= refreshInterval) {
		return event, nil
	}
	answer, err := request()
	if err == nil {
		l.sent.Add(same, time.Now())
	}
	return answer, err
}
