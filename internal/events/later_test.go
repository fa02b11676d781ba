package events

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// outbox is a later whose events go nowhere.
type outbox struct {
	*later
	mu   sync.Mutex
	sent []string // reason and object
	fail func(event *v1.Event) error
}

func newOutbox(hold time.Duration) *outbox {
	o := &outbox{fail: func(*v1.Event) error { return nil }}
	o.later = newLater(func(_ context.Context, event *v1.Event) error {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.sent = append(o.sent, event.Reason+" "+string(event.InvolvedObject.UID))
		return o.fail(event)
	}, unlimited.Wait, hold, maxWaiting)
	o.retries.Duration = time.Millisecond
	return o
}

func (o *outbox) add(reason string, object types.UID) {
	o.push(&v1.Event{Reason: reason, Type: v1.EventTypeNormal, InvolvedObject: v1.ObjectReference{UID: object}})
}

// want runs the outbox until as much is sent, and nothing waits but what is held.
func (o *outbox) want(t *testing.T, held int, want ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		o.run(ctx)
	}()
	for end := time.Now().Add(patience); len(o.room) > held && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-ended
	o.mu.Lock()
	defer o.mu.Unlock()
	if !slices.Equal(o.sent, want) || len(o.room) != held {
		t.Errorf("%q were sent and %d wait, want %q and %d", o.sent, len(o.room), want, held)
	}
	o.sent = nil
}

func TestWhatSucceedsSoonIsOneEvent(t *testing.T) {
	o := newOutbox(time.Hour)
	o.add(provisioningReason, "a")
	o.add(provisioningReason, "b")
	o.add(succeededReason, "a")
	o.want(t, 1, "ProvisioningSucceeded a")
	o.add(succeededReason, "b")
	o.add(succeededReason, "c")
	o.want(t, 0, "ProvisioningSucceeded b", "ProvisioningSucceeded c")
}

func TestWhatTakesLongIsTwoEvents(t *testing.T) {
	o := newOutbox(50 * time.Millisecond)
	o.add(provisioningReason, "a")
	o.add("Other", "a")
	o.want(t, 0, "Other a", "Provisioning a")
	o.add(succeededReason, "a")
	o.want(t, 0, "ProvisioningSucceeded a")
}

// An outage holds events up, and an event that is refused does not.
func TestEventsAreTriedAgain(t *testing.T) {
	o := newOutbox(0)
	failures := 3
	o.fail = func(event *v1.Event) error {
		if event.InvolvedObject.UID == "refused" {
			return apierrors.NewForbidden(schema.GroupResource{Resource: "events"}, "refused", errors.New("the namespace is being terminated"))
		}
		failures--
		if failures >= 0 {
			return errors.New("connection refused")
		}
		return nil
	}
	o.add("A", "refused")
	o.add("B", "1")
	o.add("C", "2")
	o.want(t, 0, "A refused", "B 1", "B 1", "B 1", "B 1", "C 2")
}

func TestEventsThatWaitAreBounded(t *testing.T) {
	o := newOutbox(0)
	o.room = make(chan struct{}, 2)
	o.add("A", "1")
	o.add("B", "1")
	o.add("C", "1") // at once, as warnings come behind it
	o.want(t, 0, "A 1", "B 1")
	o.room = make(chan struct{}, 100)
	go o.run(t.Context())
	var want []string
	for i := range 100 {
		want = append(want, fmt.Sprintf("D %d", i))
		o.add("D", types.UID(fmt.Sprint(i)))
	}
	for end := time.Now().Add(patience); len(o.room) > 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if !slices.Equal(o.sent, want) {
		t.Errorf("%q were sent, want %q", o.sent, want)
	}
}

// Where there is no room, what a claim has come to is told still in the place of its beginning.
func TestSuccessTakesTheRoomOfItsBeginning(t *testing.T) {
	o := newOutbox(time.Hour)
	o.room = make(chan struct{}, 2)
	o.add(provisioningReason, "a")
	o.add(provisioningReason, "b")
	o.add("Other", "c") // there is no room
	o.add(succeededReason, "a")
	o.add(succeededReason, "b")
	o.want(t, 0, "ProvisioningSucceeded a", "ProvisioningSucceeded b")
}

// What is not to be sent any more is forgotten, also while there is always something to be sent.
func TestWhatHasSucceededIsForgotten(t *testing.T) {
	o := newOutbox(time.Hour)
	for i := range 1000 {
		object := types.UID(fmt.Sprint(i))
		o.add(provisioningReason, object)
		o.add(succeededReason, object)
	}
	if len(o.held) > 200 || len(o.room) != 1000 {
		t.Errorf("%d are held, %d wait", len(o.held), len(o.room))
	}
}
