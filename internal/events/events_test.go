package events

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/util/flowcontrol"
)

var (
	always = flowcontrol.NewFakeAlwaysRateLimiter()
	never  = flowcontrol.NewFakeNeverRateLimiter()
)

// byDefault is the budget that the provisioner has by default.
func byDefault() Budget {
	return Budget{
		Warnings: flowcontrol.NewTokenBucketRateLimiter(warningRate, warningBurst),
		Normal:   flowcontrol.NewTokenBucketRateLimiter(5, normalBurst),
	}
}

const warningRate, warningBurst, normalBurst = 25, 10, 25

func claim(name string, uid types.UID) *v1.PersistentVolumeClaim {
	return &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: uid, ResourceVersion: "1"}}
}

func numbered(i int) *v1.PersistentVolumeClaim {
	return claim("data-"+strconv.Itoa(i), types.UID(strconv.Itoa(i)))
}

// attempt is what the library records about one that fails.
func (s *server) attempt(object runtime.Object) {
	s.recorder.Event(object, v1.EventTypeNormal, "Provisioning", `External provisioner is provisioning volume for claim "shop/data"`)
	synctest.Wait() // the recorder takes what comes
	s.fails(object)
}

func (s *server) fails(object runtime.Object) {
	s.recorder.Event(object, v1.EventTypeWarning, "ProvisioningFailed", "the NFS server does not answer")
	synctest.Wait()
}

func (s *server) succeeds(object runtime.Object) {
	s.recorder.Event(object, v1.EventTypeNormal, "ProvisioningSucceeded", "Successfully provisioned volume")
	synctest.Wait()
}

func TestAttemptsThatFailAlike(t *testing.T) {
	withServer(t, Budget{always, always}, func(t *testing.T, s *server) {
		data := claim("data", "1")
		for range 3 {
			s.attempt(data)
		}
		s.want(1, 0, "three attempts")
		sleep(59 * time.Second)
		s.attempt(data)
		s.want(0, 0, "within the minute")
		sleep(time.Second)
		s.attempt(data)
		s.want(0, 1, "after a minute")
		if got := s.stored()["1"].Count; got != 5 {
			t.Errorf("the event counts %d, not the 5 attempts", got)
		}
	})
}

func TestWhatDiffersIsSent(t *testing.T) {
	withServer(t, Budget{always, always}, func(_ *testing.T, s *server) {
		s.attempt(claim("data", "1"))
		s.want(1, 0, "the first attempt")
		again := claim("data", "1")
		again.ResourceVersion = "2"
		s.attempt(again)
		s.want(0, 0, "the claim has changed")
		s.attempt(claim("data", "2"))
		s.want(1, 0, "another claim of that name")
		s.attempt(claim("logs", "3"))
		s.want(1, 0, "another claim")
		s.recorder.Event(again, v1.EventTypeWarning, "ProvisioningFailed", "the class has no parameter server")
		s.want(1, 0, "another message")
		s.recorder.Event(again, v1.EventTypeWarning, "VolumeFailedDelete", "the NFS server does not answer")
		s.want(1, 0, "another reason")
		s.recorder.Event(again, v1.EventTypeNormal, "ProvisioningFailed", "the NFS server does not answer")
		s.want(1, 0, "another type")
		s.recorder.Event(again, v1.EventTypeWarning, "Provisioning", "a warning")
		s.want(1, 0, "a warning of the reason of which Normal events are dropped")
	})
}

// What the API server did not get is sent again, and what it refuses holds up nothing.
func TestOutage(t *testing.T) {
	withServer(t, byDefault(), func(t *testing.T, s *server) {
		outage := 3
		s.answer = func(event *v1.Event) error {
			switch {
			case event.InvolvedObject.UID == "0":
				return apierrors.NewForbidden(schema.GroupResource{Resource: "events"}, event.Name, errors.New("the namespace is being terminated"))
			case outage > 0:
				outage--
				return errors.New("connection refused")
			}
			return nil
		}
		for i := range 3 {
			s.fails(numbered(i))
		}
		sleep(maxAge)
		s.want(1+3+2, 0, "one that is refused, three in an outage, and two")
		if got := []int32{s.stored()["1"].Count, s.stored()["2"].Count}; len(s.stored()) != 2 || got[0] != 1 || got[1] != 1 {
			t.Errorf("%d events, which count %d", len(s.stored()), got)
		}
	})
}

// The API server forgets events after an hour. The recorder creates them again then.
func TestAnEventThatIsGoneIsCreatedAgain(t *testing.T) {
	withServer(t, byDefault(), func(t *testing.T, s *server) {
		s.fails(claim("data", "1"))
		s.want(1, 0, "the first attempt")
		s.forget("1")
		sleep(time.Hour)
		s.fails(claim("data", "1"))
		s.want(1, 1, "after an hour")
		if got := s.stored()["1"].Count; got != 2 {
			t.Errorf("the event counts %d", got)
		}
	})
}

func TestEverythingElsePasses(t *testing.T) {
	ctx := t.Context()
	inner, forEvents := fake.NewClientset(&v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}}), fake.NewClientset()
	client := Limit(ctx, inner, forEvents, Budget{never, never})
	if _, err := client.CoreV1().PersistentVolumes().Get(ctx, "pv", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := client.StorageV1().StorageClasses().List(ctx, metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
	for i := range 2 {
		event := &v1.Event{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("e", i)}, Reason: "Provisioning", Type: v1.EventTypeNormal}
		if _, err := client.CoreV1().Events("shop").Create(ctx, event, metav1.CreateOptions{}); err != nil {
			t.Error(err)
		}
	}
	if list, err := forEvents.CoreV1().Events("shop").List(ctx, metav1.ListOptions{}); err != nil || len(list.Items) != 2 {
		t.Errorf("%v, %v", list, err)
	}
	if got := len(inner.Actions()); got != 2 {
		t.Errorf("%d requests by the client: %v", got, inner.Actions())
	}
}

// Normal events never wait: those beyond the budget are dropped.
func TestABurstOfNormalEvents(t *testing.T) {
	withServer(t, byDefault(), func(_ *testing.T, s *server) {
		for i := range 1000 {
			s.succeeds(numbered(i))
		}
		s.want(normalBurst, 0, "a thousand at once")
		sleep(time.Hour)
		s.want(0, 0, "an hour later")
		s.succeeds(numbered(1000))
		s.want(1, 0, "another one")
	})
}

// A server dies that many claims wait for. Recording takes no time, the API server gets no more requests than there is
// budget for, 500 are told of within 20 s, and the others with their next attempts: those that were are in nobody's way.
func TestManyWarnings(t *testing.T) {
	withServer(t, byDefault(), func(t *testing.T, s *server) {
		const claims, each, pause = 1500, 500, 80 * time.Second
		for attempt := 1; attempt <= claims/each; attempt++ {
			recorded := time.Now()
			for i := range claims {
				s.attempt(numbered(i))
			}
			if took := time.Since(recorded); took != 0 {
				t.Errorf("recording took %v", took)
			}
			sleep(each / warningRate * time.Second)
			if got := len(s.stored()); got < attempt*each {
				t.Errorf("attempt %d: %d claims are told of", attempt, got)
			}
			s.keptPace(warningRate, warningBurst)
			sleep(pause)
		}
	})
}

// The server is dead for hours. Each claim has its event all the time, with a repetition of some minutes ago, and with
// the count of all attempts until then.
func TestALongOutage(t *testing.T) {
	const claims, every = 120, 80 * time.Second
	withServer(t, Budget{Normal: never, Warnings: flowcontrol.NewTokenBucketRateLimiter(claims/40, 2)}, func(t *testing.T, s *server) {
		attempts := 0
		for begun := time.Now(); time.Since(begun) < 2*time.Hour; {
			for i := range claims {
				s.attempt(numbered(i))
			}
			attempts++
			sleep(every)
			s.keptPace(claims/40, 2)
			for _, event := range s.stored() {
				ago, missed := time.Since(event.LastTimestamp.Time), attempts-int(event.Count)
				if ago > refreshInterval+every+5*time.Minute || time.Duration(missed+1)*every != ago {
					t.Fatalf("attempt %d: %s was repeated %v ago, and counts %d", attempts, event.Name, ago, event.Count)
				}
			}
			if len(s.stored()) != claims {
				t.Fatalf("attempt %d: %d claims have events", attempts, len(s.stored()))
			}
		}
	})
}

// A warning is sent within a minute or not at all.
func TestWarningsThatGrowOldAreDropped(t *testing.T) {
	withServer(t, Budget{Normal: never, Warnings: flowcontrol.NewTokenBucketRateLimiter(1, 1)}, func(t *testing.T, s *server) {
		recorded := time.Now()
		for i := range 100 {
			s.fails(numbered(i))
		}
		sleep(time.Hour)
		requests := s.succeeded()
		if got, last := len(requests), requests[len(requests)-1].Sub(recorded); got < 60 || got > 61 || last > maxAge {
			t.Errorf("%d were sent, the last after %v", got, last)
		}
		s.fails(numbered(99))
		sleep(2 * time.Second)
		if s.stored()["99"] == nil {
			t.Error("the next attempt is not told of")
		}
	})
}

// Recording waits for nothing, whatever the API server does, and there is nothing more after the end.
func TestAnAPIServerThatHangs(t *testing.T) {
	withServer(t, byDefault(), func(t *testing.T, s *server) {
		hangs := make(chan struct{})
		s.answer = func(*v1.Event) error {
			<-hangs
			return errors.New("no answer")
		}
		recorded := time.Now()
		for i := range 5000 {
			s.attempt(numbered(i))
		}
		if took := time.Since(recorded); took != 0 {
			t.Errorf("recording took %v", took)
		}
		s.want(1, 0, "the one that hangs")
		s.end()
		close(hangs)
		sleep(time.Minute) // the recorder tries again within 10 s
		s.want(0, 0, "after the end")
	})
}

func TestTheEndEndsTheWait(t *testing.T) {
	withServer(t, Budget{Normal: always, Warnings: flowcontrol.NewTokenBucketRateLimiter(0.001, 1)}, func(_ *testing.T, s *server) {
		for i := range 3 {
			s.fails(numbered(i))
		}
		s.want(1, 0, "a budget for one")
		s.end()
		s.succeeds(numbered(3))
		s.fails(numbered(4))
		s.want(0, 0, "after the end")
	})
}

func TestMemoryIsBounded(t *testing.T) {
	l := Limit(t.Context(), nil, nil, Budget{always, always}).(limitedClient).limiter
	for i := range 2 * maxSent {
		event := &v1.Event{Type: v1.EventTypeNormal, Reason: strconv.Itoa(i)}
		if _, err := l.send(event, func() (*v1.Event, error) { return event, nil }); err != nil {
			t.Fatal(err)
		}
	}
	if got := l.sent.Len(); got != maxSent {
		t.Errorf("%d are kept", got)
	}
}

// Several recorders that have the same event at once send it once.
func TestOneOfManyAtOnceIsSent(t *testing.T) {
	l := Limit(t.Context(), nil, nil, Budget{always, always}).(limitedClient).limiter
	var all sync.WaitGroup
	var requests atomic.Int32
	for range 20 {
		all.Go(func() {
			_, _ = l.send(&v1.Event{Type: v1.EventTypeNormal}, func() (*v1.Event, error) {
				requests.Add(1)
				time.Sleep(10 * time.Millisecond)
				return nil, nil
			})
		})
	}
	all.Wait()
	if got := requests.Load(); got != 1 {
		t.Errorf("%d requests", got)
	}
}
