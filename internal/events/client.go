package events

import (
	"context"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/utils/clock"
)

// Throttle returns client, but with its events sent by the client by, and with less from
// an event recorder (client-go's tools/record) that has its CoreV1().Events as a sink: of events with the same
// object, type, reason and message one goes out in a minute, and the Normal event
// "Provisioning" about an object once in an hour. An event with another message is
// another event. What does not go out counts as sent, without an error.
//
// Everything else goes to client as it is, events that are sent in another way too.
func Throttle(client, by kubernetes.Interface) kubernetes.Interface {
	return throttleBy(client, by, clock.RealClock{})
}

func throttleBy(client, by kubernetes.Interface, clock clock.PassiveClock) kubernetes.Interface {
	return throttled{Interface: client, by: by, throttle: newThrottle(clock)}
}

type throttled struct {
	kubernetes.Interface
	by       kubernetes.Interface
	throttle *throttle
}

func (t throttled) CoreV1() corev1.CoreV1Interface {
	return core{CoreV1Interface: t.Interface.CoreV1(), by: t.by.CoreV1(), throttle: t.throttle}
}

type core struct {
	corev1.CoreV1Interface
	by       corev1.CoreV1Interface
	throttle *throttle
}

func (c core) Events(namespace string) corev1.EventInterface {
	return sink{EventInterface: c.by.Events(namespace), throttle: c.throttle}
}

// sink has what a recorder calls: today the forms without a context, which are
// deprecated already.
type sink struct {
	corev1.EventInterface
	throttle *throttle
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
	return s.throttle.once(event, func() (*v1.Event, error) {
		return s.EventInterface.CreateWithEventNamespaceWithContext(ctx, event)
	})
}

// PatchWithEventNamespaceWithContext is PatchWithEventNamespace.
func (s sink) PatchWithEventNamespaceWithContext(ctx context.Context, event *v1.Event, data []byte) (*v1.Event, error) {
	return s.throttle.once(event, func() (*v1.Event, error) {
		return s.EventInterface.PatchWithEventNamespaceWithContext(ctx, event, data)
	})
}
