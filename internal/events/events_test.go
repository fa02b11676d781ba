package events

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/flowcontrol"
	clocktesting "k8s.io/utils/clock/testing"
)

const patience = 30 * time.Second

var unlimited = flowcontrol.NewFakeAlwaysRateLimiter()

// bench is a recorder, as the controller library makes one, whose client is throttled.
type bench struct {
	*testing.T
	client   *fake.Clientset
	clock    *clocktesting.FakePassiveClock
	throttle *throttle
	normal   *later
	recorder record.EventRecorder
	markers  int
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{T: t, client: fake.NewClientset(), clock: clocktesting.NewFakePassiveClock(time.Now())}
	client := throttleBy(b.client, b.client, b.clock, unlimited, 0)
	b.throttle, b.normal = client.throttle, client.normal
	for _, l := range []*later{client.normal, client.warnings} {
		l.retries.Duration = time.Millisecond
		go l.run(t.Context())
	}
	broadcaster := record.NewBroadcasterForTests(time.Millisecond)
	t.Cleanup(broadcaster.Shutdown)
	broadcaster.StartRecordingToSink(&corev1.EventSinkImpl{Interface: client.CoreV1().Events(v1.NamespaceAll)})
	b.recorder = broadcaster.NewRecorder(scheme.Scheme, v1.EventSource{Component: "test"})
	return b
}

func claim(name string, uid types.UID) *v1.PersistentVolumeClaim {
	return &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: uid, ResourceVersion: "1"}}
}

// sent waits until all is sent and returns how many requests there were since the last call.
func (b *bench) sent() (created, patched int) {
	b.Helper()
	b.markers++
	marker := "marker-" + strconv.Itoa(b.markers)
	b.recorder.Event(claim(marker, types.UID(marker)), v1.EventTypeWarning, "Marker", "")
	marked := false
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		all := marked && len(b.normal.room) == 0 // what was recorded before the marker is sent
		created, patched = 0, 0
		for _, action := range b.client.Actions() {
			switch action := action.(type) {
			case clienttesting.CreateAction:
				if action.GetObject().(*v1.Event).InvolvedObject.Name == marker {
					marked = true
				} else {
					created++
				}
			case clienttesting.PatchAction:
				patched++
			}
		}
		if all {
			b.client.ClearActions()
			return created, patched
		}
	}
	b.Fatal("the recorder sends nothing")
	return 0, 0
}

func (b *bench) want(created, patched int, what string) {
	b.Helper()
	if c, p := b.sent(); c != created || p != patched {
		b.Errorf("%s: %d created and %d patched, want %d and %d", what, c, p, created, patched)
	}
}

// counts returns the count of the event with each reason.
func (b *bench) counts() map[string]int32 {
	b.Helper()
	list, err := b.client.CoreV1().Events("shop").List(b.Context(), metav1.ListOptions{})
	if err != nil {
		b.Fatal(err)
	}
	counts := map[string]int32{}
	for _, event := range list.Items {
		counts[event.Reason] = event.Count
	}
	b.client.ClearActions()
	return counts
}

// attempt is what the library says about one that fails.
func (b *bench) attempt(object runtime.Object) {
	b.recorder.Event(object, v1.EventTypeNormal, "Provisioning", `External provisioner is provisioning volume for claim "shop/data"`)
	b.recorder.Event(object, v1.EventTypeWarning, "ProvisioningFailed", "the NFS server does not answer")
}

func TestAttemptsThatFailAlike(t *testing.T) {
	b := newBench(t)
	data := claim("data", "1")
	for range 3 {
		b.attempt(data)
	}
	b.want(2, 0, "three attempts")
	b.clock.SetTime(b.clock.Now().Add(59 * time.Second))
	b.attempt(data)
	b.want(0, 0, "within the minute")
	b.clock.SetTime(b.clock.Now().Add(time.Second))
	b.attempt(data)
	b.want(0, 1, "after a minute")
	if counts := b.counts(); counts["ProvisioningFailed"] != 5 || counts["Provisioning"] != 1 {
		t.Errorf("counted %v", counts)
	}
	b.clock.SetTime(b.clock.Now().Add(time.Hour - time.Minute))
	b.attempt(data)
	b.want(0, 2, "after an hour")
	if counts := b.counts(); counts["ProvisioningFailed"] != 6 || counts["Provisioning"] != 6 {
		t.Errorf("counted %v", counts)
	}
}

func TestWhatDiffersIsSent(t *testing.T) {
	b := newBench(t)
	b.attempt(claim("data", "1"))
	b.want(2, 0, "the first attempt")
	again := claim("data", "1")
	again.ResourceVersion = "2"
	b.attempt(again)
	b.want(0, 0, "the claim has changed")
	b.attempt(claim("data", "2"))
	b.want(2, 0, "another claim of that name")
	b.attempt(claim("logs", "3"))
	b.want(2, 0, "another claim")
	b.recorder.Event(again, v1.EventTypeWarning, "ProvisioningFailed", "the class has no parameter server")
	b.want(1, 0, "another message")
	b.recorder.Event(again, v1.EventTypeWarning, "VolumeFailedDelete", "the NFS server does not answer")
	b.want(1, 0, "another reason")
	b.recorder.Event(again, v1.EventTypeNormal, "ProvisioningFailed", "the NFS server does not answer")
	b.want(1, 0, "another type")
	b.recorder.Event(again, v1.EventTypeNormal, "Provisioning", "in other words")
	b.want(0, 0, "the same attempts in other words")
	b.recorder.Event(again, v1.EventTypeWarning, "Provisioning", "a warning")
	b.want(1, 0, "a warning of that reason")
}

// The recorder tries again what the API server did not take.
func TestWhatCouldNotBeSentIsTriedAgain(t *testing.T) {
	b := newBench(t)
	var failures atomic.Int32
	b.client.PrependReactor("create", "events", func(clienttesting.Action) (bool, runtime.Object, error) {
		if failures.Add(1) <= 3 {
			return true, nil, errors.New("connection refused")
		}
		return false, nil, nil
	})
	b.recorder.Event(claim("data", "1"), v1.EventTypeWarning, "ProvisioningFailed", "the NFS server does not answer")
	b.want(4, 0, "three failures and a success")
	if counts := b.counts(); counts["ProvisioningFailed"] != 1 {
		t.Errorf("counted %v", counts)
	}
}

// The API server forgets events. The recorder creates them again then.
func TestAnEventThatIsGoneIsCreatedAgain(t *testing.T) {
	b := newBench(t)
	data := claim("data", "1")
	b.attempt(data)
	b.want(2, 0, "the first attempt")
	events := v1.SchemeGroupVersion.WithResource("events")
	list, err := b.client.CoreV1().Events("shop").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, event := range list.Items {
		if err := b.client.Tracker().Delete(events, "shop", event.Name); err != nil {
			t.Fatal(err)
		}
	}
	b.client.ClearActions()
	b.clock.SetTime(b.clock.Now().Add(time.Hour))
	b.attempt(data)
	b.want(2, 2, "after an hour")
	if counts := b.counts(); counts["ProvisioningFailed"] != 2 {
		t.Errorf("counted %v", counts)
	}
}

func TestEverythingElsePasses(t *testing.T) {
	ctx := t.Context()
	inner := fake.NewClientset(&v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}})
	client := Throttle(t.Context(), inner, inner, unlimited)
	if _, err := client.CoreV1().PersistentVolumes().Get(ctx, "pv", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := client.StorageV1().StorageClasses().List(ctx, metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
	events := client.CoreV1().Events("shop")
	for i := range 2 {
		event := &v1.Event{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("e", i)}, Reason: "Provisioning", Type: v1.EventTypeNormal}
		if _, err := events.Create(ctx, event, metav1.CreateOptions{}); err != nil {
			t.Error(err)
		}
		if _, err := events.UpdateWithEventNamespaceWithContext(ctx, event); err != nil {
			t.Error(err)
		}
	}
	if actions := inner.Actions(); len(actions) != 6 {
		t.Errorf("%d requests: %v", len(actions), actions)
	}
}

// The forms with a context, which a later recorder will call.
func TestTheFormsWithAContextAreThrottledToo(t *testing.T) {
	inner := fake.NewClientset()
	sink := Throttle(t.Context(), inner, inner, unlimited).CoreV1().Events("")
	event := &v1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "e"}, Reason: "ProvisioningFailed", Type: v1.EventTypeWarning}
	for range 2 {
		if got, err := sink.CreateWithEventNamespaceWithContext(t.Context(), event); err != nil || got.Name != "e" {
			t.Errorf("create: %v, %v", got, err)
		}
		if got, err := sink.PatchWithEventNamespaceWithContext(t.Context(), event, []byte("{}")); err != nil || got.Name != "e" {
			t.Errorf("patch: %v, %v", got, err)
		}
	}
	wantOne(t, inner)
}

// wantOne waits for the one request, and for those that should not come.
func wantOne(t *testing.T, client *fake.Clientset) {
	t.Helper()
	for end := time.Now().Add(patience); len(client.Actions()) == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond)
	if actions := client.Actions(); len(actions) != 1 {
		t.Errorf("%d requests: %v", len(actions), actions)
	}
}

func TestOneOfManyAtOnceIsSent(t *testing.T) {
	inner := fake.NewClientset()
	client := Throttle(t.Context(), inner, inner, unlimited)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			event := &v1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprint("e", i)}, Reason: "ProvisioningFailed"}
			_, _ = client.CoreV1().Events("").CreateWithEventNamespaceWithContext(context.Background(), event)
		})
	}
	all.Wait()
	wantOne(t, inner)
}

// Warnings don't wait for Normal events. Those for which there is no room go as they come.
func TestWarningsHaveAPaceOfTheirOwn(t *testing.T) {
	inner := fake.NewClientset()
	client := throttleBy(inner, inner, clocktesting.NewFakePassiveClock(time.Now()), unlimited, 0)
	client.normal.pace = func(context.Context) error { return errors.New("never") }
	client.warnings.room = make(chan struct{}, 10)
	record := func(kind, name string) {
		event := &v1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, InvolvedObject: v1.ObjectReference{UID: types.UID(name)}, Reason: "R", Type: kind}
		if _, err := client.CoreV1().Events("").CreateWithEventNamespaceWithContext(t.Context(), event); err != nil {
			t.Error(err)
		}
	}
	for i := range 10 {
		record(v1.EventTypeWarning, fmt.Sprint("waits", i))
	}
	if client.whenIdle.last.Load() != nil {
		t.Error("a warning counts as news of a Normal event")
	}
	record(v1.EventTypeNormal, "normal")
	if client.whenIdle.last.Load() == nil {
		t.Error("a Normal event is no news")
	}
	if got := len(inner.Actions()); got != 0 {
		t.Errorf("%d were sent before their time", got)
	}
	record(v1.EventTypeWarning, "beyond")
	if got := len(inner.Actions()); got != 1 {
		t.Errorf("%d were sent at once, not the one beyond what waits", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { client.normal.run(ctx) })
	running.Go(func() { client.warnings.run(ctx) })
	for end := time.Now().Add(patience); len(client.warnings.room) > 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	cancel()
	running.Wait()
	if got := len(inner.Actions()); got != 11 {
		t.Errorf("%d were sent, not the 11 warnings", got)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	clock := clocktesting.NewFakePassiveClock(time.Now())
	throttle := newThrottle(clock)
	take := func(i int) {
		throttle.take(key{kind: v1.EventTypeNormal, reason: provisioningReason, object: v1.ObjectReference{UID: types.UID(strconv.Itoa(i))}})
	}
	for i := range 2*maxKept + 10 {
		take(i)
		if len(throttle.until) > maxKept {
			t.Fatalf("%d are kept", len(throttle.until))
		}
	}
	clock.SetTime(clock.Now().Add(2 * time.Hour))
	take(0)
	if len(throttle.until) != 1 {
		t.Errorf("%d are kept of what is due again", len(throttle.until))
	}
}

// A repeated warning keeps to the pace, and is due still if there is no time for it.
func TestRepeatedWarningsKeepToThePace(t *testing.T) {
	event := &v1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "e"}, Reason: "ProvisioningFailed", Type: v1.EventTypeWarning}
	inner := fake.NewClientset(event)
	client := throttleBy(inner, inner, clocktesting.NewFakePassiveClock(time.Now()), flowcontrol.NewFakeNeverRateLimiter(), 0)
	repeat := func() {
		if got, err := client.CoreV1().Events("").PatchWithEventNamespaceWithContext(t.Context(), event, []byte("{}")); got == nil && err == nil {
			t.Error("nothing came of it")
		}
	}
	repeat()
	if got := len(inner.Actions()); got != 0 {
		t.Errorf("%d were sent", got)
	}
	client.warningPace = unlimited
	repeat()
	repeat()
	if got := len(inner.Actions()); got != 1 {
		t.Errorf("%d were sent when there was time", got)
	}
}
