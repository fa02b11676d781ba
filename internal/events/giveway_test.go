package events

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
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
