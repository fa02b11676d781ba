package events

import (
	"context"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
)

// server is an API server that has events, with a recorder whose client is limited, as the controller library makes
// one. Its clock is that of a bubble of testing/synctest: what waits for nothing takes no time.
type server struct {
	kubernetes.Interface
	corev1.CoreV1Interface
	corev1.EventInterface
	t        *testing.T
	recorder record.EventRecorder
	end      context.CancelFunc          // of the context that the client was limited with
	answer   func(event *v1.Event) error // to a request; nil is success

	mu               sync.Mutex
	events           map[types.UID]*v1.Event // the newest of each object
	requests         []time.Time
	creates, patches int // since the last want
}

func withServer(t *testing.T, budget Budget, test func(*testing.T, *server)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, end := context.WithCancel(t.Context())
		defer end()
		s := &server{t: t, end: end, events: map[types.UID]*v1.Event{}, answer: func(*v1.Event) error { return nil }}
		client := Limit(ctx, s, s, budget)
		broadcaster := record.NewBroadcaster()
		defer broadcaster.Shutdown()
		broadcaster.StartRecordingToSink(&corev1.EventSinkImpl{Interface: client.CoreV1().Events(v1.NamespaceAll)})
		s.recorder = broadcaster.NewRecorder(scheme.Scheme, v1.EventSource{Component: "test"})
		test(t, s)
	})
}

// sleep waits until nothing happens any more at the end of d.
func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (s *server) CoreV1() corev1.CoreV1Interface { return s }

func (s *server) Events(string) corev1.EventInterface { return s }

func (s *server) CreateWithEventNamespaceWithContext(_ context.Context, event *v1.Event) (*v1.Event, error) {
	s.mu.Lock()
	s.creates++
	s.mu.Unlock()
	return s.store(event)
}

func (s *server) PatchWithEventNamespaceWithContext(_ context.Context, event *v1.Event, _ []byte) (*v1.Event, error) {
	s.mu.Lock()
	s.patches++
	stored := s.events[event.InvolvedObject.UID]
	s.mu.Unlock()
	if stored == nil || stored.Name != event.Name {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "events"}, event.Name)
	}
	return s.store(event)
}

func (s *server) store(event *v1.Event) (*v1.Event, error) {
	if err := s.answer(event); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, time.Now())
	s.events[event.InvolvedObject.UID] = event
	return event, nil
}

// stored returns the newest event of each object.
func (s *server) stored() map[types.UID]*v1.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.events)
}

// forget deletes the event of an object.
func (s *server) forget(object types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.events, object)
}

// succeeded returns when there were requests that stored an event.
func (s *server) succeeded() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// want checks how many requests there were since the last call.
func (s *server) want(creates, patches int, what string) {
	s.t.Helper()
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.creates != creates || s.patches != patches {
		s.t.Errorf("%s: %d created and %d patched, want %d and %d", what, s.creates, s.patches, creates, patches)
	}
	s.creates, s.patches = 0, 0
}

// keptPace checks that there were never more requests in a second than the budget has.
func (s *server) keptPace(rate, burst int) {
	s.t.Helper()
	requests, first := s.succeeded(), 0
	for last, at := range requests {
		for at.Sub(requests[first]) >= time.Second {
			first++
		}
		if got := last - first + 1; got > rate+burst+1 {
			s.t.Fatalf("%d requests within a second", got)
		}
	}
}
