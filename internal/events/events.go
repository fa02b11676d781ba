// Package events keeps a controller that retries for ever from flooding the API
// server, and the people who read, with events about the same thing.
//
// sig-storage-lib sends a Normal event "Provisioning" at the start of every attempt
// and a Warning at the end of each that failed. With a dead NFS server and a
// thousand claims that is most of what the API server gets to do. client-go's
// recorder only turns repetitions into patches, one request each.
package events

import (
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"
)

// Of the same event, one is sent in a minute. "Provisioning" goes with the first
// attempt: an hour is what the API server keeps events for.
const (
	repeatInterval       = time.Minute
	provisioningInterval = time.Hour
	provisioningReason   = "Provisioning"
)

// maxKept bounds what is remembered, at some 300 bytes each, and the message.
// Beyond it all is forgotten, and events are sent once more.
const maxKept = 50_000

// key is what makes two events the same.
type key struct {
	object                v1.ObjectReference
	kind, reason, message string
}

// throttle remembers what was sent. Its methods may be called concurrently.
type throttle struct {
	clock clock.PassiveClock

	mu    sync.Mutex
	until map[key]time.Time // while the same is not sent again
	swept time.Time
}

func newThrottle(clock clock.PassiveClock) *throttle {
	return &throttle{clock: clock, until: map[key]time.Time{}, swept: clock.Now()}
}

// once calls send if the event is due, and otherwise returns it as if it had been
// sent: the recorder goes on counting, and the next that is sent has the full count.
// What could not be sent stays due.
func (t *throttle) once(event *v1.Event, send func() (*v1.Event, error)) (*v1.Event, error) {
	k := keyOf(event)
	if !t.take(k) {
		return event, nil
	}
	sent, err := send()
	if err != nil {
		t.giveBack(k)
	}
	return sent, err
}

// take reports whether the event is due, and if so that it is not again for a while.
func (t *throttle) take(k key) bool {
	interval := repeatInterval
	if k.isProvisioning() {
		interval = provisioningInterval
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.clock.Now()
	t.sweep(now)
	if now.Before(t.until[k]) {
		return false
	}
	t.until[k] = now.Add(interval)
	return true
}

func (t *throttle) giveBack(k key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.until, k)
}

// sweep makes room: now and then by forgetting what has become due.
func (t *throttle) sweep(now time.Time) {
	if len(t.until) >= maxKept {
		clear(t.until)
	}
	if now.Sub(t.swept) < repeatInterval {
		return
	}
	t.swept = now
	for k, until := range t.until {
		if !now.Before(until) {
			delete(t.until, k)
		}
	}
}

func keyOf(event *v1.Event) key {
	object := event.InvolvedObject
	object.ResourceVersion = "" // it changes with every attempt
	k := key{object: object, kind: event.Type, reason: event.Reason, message: event.Message}
	if k.isProvisioning() {
		k.message = "" // the attempt counts, not what is said about it
	}
	return k
}

func (k key) isProvisioning() bool {
	return k.kind == v1.EventTypeNormal && k.reason == provisioningReason
}
