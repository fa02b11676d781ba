package events

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/utils/clock"
)

// Throttle returns client, but with its events sent by the client by, and with less from
// an event recorder (client-go's tools/record) that has its CoreV1().Events as a sink: of events with the same
// object, type, reason and message one goes out in a minute, and the Normal event
// "Provisioning" about an object once in an hour. An event with another message is
// another event. What does not go out counts as sent, without an error.
//
// New events count as sent at once, too, and are sent one after the other until ctx ends: the
// warnings at a pace, within half a minute; the Normal ones 4 a second, and 50 when there was no new
// one for 20 s. "Provisioning" goes after a second, and not at all if "ProvisioningSucceeded" about
// the same object comes before its turn. A repeated warning for which there is no time at the pace
// is told by the next one.
//
// Everything else goes to client as it is, events that are sent in another way too.
func Throttle(ctx context.Context, client, by kubernetes.Interface, warnings flowcontrol.RateLimiter) kubernetes.Interface {
	t := throttleBy(client, by, clock.RealClock{}, warnings, holdBegun)
	go t.normal.run(ctx)
	go t.warnings.run(ctx)
	return t
}

func throttleBy(client, by kubernetes.Interface, clock clock.PassiveClock, warnings flowcontrol.RateLimiter, hold time.Duration) throttled {
	send := func(ctx context.Context, event *v1.Event) error {
		_, err := by.CoreV1().Events(v1.NamespaceAll).CreateWithEventNamespaceWithContext(ctx, event)
		return err
	}
	whenIdle := &giveWay{}
	return throttled{
		Interface: client, by: by, throttle: newThrottle(clock), warningPace: warnings, whenIdle: whenIdle,
		normal:   newLater(send, whenIdle.wait, hold, maxWaiting),
		warnings: newLater(send, warnings.Wait, 0, 1+int(warnings.QPS()*float32(maxWait.Seconds()))),
	}
}

type throttled struct {
	kubernetes.Interface
	by               kubernetes.Interface
	throttle         *throttle
	normal, warnings *later
	warningPace      flowcontrol.RateLimiter
	whenIdle         *giveWay
}

func (t throttled) CoreV1() corev1.CoreV1Interface {
	return core{CoreV1Interface: t.Interface.CoreV1(), throttled: t}
}

type core struct {
	corev1.CoreV1Interface
	throttled throttled
}

func (c core) Events(namespace string) corev1.EventInterface {
	return sink{EventInterface: c.throttled.by.CoreV1().Events(namespace), throttled: c.throttled}
}

// sink has what a recorder calls: today the forms without a context, which are
// deprecated already.
type sink struct {
	corev1.EventInterface
	throttled throttled
}

// CreateWithEventNamespace sends event, a new one for the recorder, if it is due.
func (s sink) CreateWithEventNamespace(event *v1.Event) (*v1.Event, error) {
	return s.CreateWithEventNamespaceWithContext(context.Background(), event)
}

// PatchWithEventNamespace sends the patch of an event that the recorder sent before,
// if the event is due.
func (s sink) PatchWithEventNamespace(event *v1.Event, data []byte) (*v1.Event, error) {
	return s.PatchWithEventNamespaceWithContext(context.Background(), event, data)
}

// CreateWithEventNamespaceWithContext is CreateWithEventNamespace.
func (s sink) CreateWithEventNamespaceWithContext(ctx context.Context, event *v1.Event) (*v1.Event, error) {
	return s.throttled.throttle.once(event, func() (*v1.Event, error) {
		if event.Type == v1.EventTypeNormal {
			s.throttled.whenIdle.news()
			s.throttled.normal.push(event) // or not at all
			return event, nil
		}
		if s.throttled.warnings.push(event) {
			return event, nil
		}
		return s.EventInterface.CreateWithEventNamespaceWithContext(ctx, event)
	})
}

// PatchWithEventNamespaceWithContext is PatchWithEventNamespace.
func (s sink) PatchWithEventNamespaceWithContext(ctx context.Context, event *v1.Event, data []byte) (*v1.Event, error) {
	return s.throttled.throttle.once(event, func() (*v1.Event, error) {
		if event.Type == v1.EventTypeWarning && !s.throttled.warningPace.TryAccept() {
			s.throttled.throttle.giveBack(keyOf(event)) // it is due still
			return event, nil
		}
		return s.EventInterface.PatchWithEventNamespaceWithContext(ctx, event, data)
	})
}
