package events

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestWhatIsNotUrgentGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pace giveWay
		want := func(waited time.Duration) {
			t.Helper()
			began := time.Now()
			if err := pace.wait(t.Context()); err != nil || time.Since(began) != waited {
				t.Errorf("waited for %v, not %v: %v", time.Since(began), waited, err)
			}
		}
		want(0) // the first
		pace.news()
		want(quietPause)
		want(busyPause)
		want(busyPause)
		time.Sleep(quiet / 2)
		want(0) // one at a time is never held up
		want(busyPause)
		time.Sleep(quiet / 2)
		want(0)
		want(quietPause)
		want(quietPause)
		pace.news()
		want(quietPause)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := pace.wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the end ended no wait: %v", err)
		}
	})
}

// A thousand claims that were served within some seconds all have their event soon after that.
func TestABurstIsToldSoonAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many, soon = 1000, time.Minute
		var pace giveWay
		sent := make(chan time.Time, many)
		l := newLater(func(context.Context, *v1.Event) error {
			time.Sleep(3 * time.Millisecond) // as an API server takes that has nothing else to do
			sent <- time.Now()
			return nil
		}, pace.wait, holdBegun, maxWaiting)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go l.run(ctx)
		for i := range many {
			time.Sleep(4 * time.Millisecond)
			object := v1.ObjectReference{UID: types.UID(fmt.Sprint(i))}
			for _, reason := range []string{provisioningReason, succeededReason} {
				pace.news()
				l.push(&v1.Event{Reason: reason, InvolvedObject: object})
			}
		}
		began := time.Now()
		if during := len(sent); during > 20 {
			t.Errorf("%d were sent while the claims came", during)
		}
		var last time.Time
		for range many {
			last = <-sent
		}
		if took := last.Sub(began); took > soon {
			t.Errorf("the last was sent %v after the burst", took)
		} else {
			t.Logf("the last was sent %v after the burst", took)
		}
		time.Sleep(time.Hour)
		if len(sent) > 0 {
			t.Errorf("%d were sent twice", len(sent))
		}
	})
}
