package events

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
)

func TestWhatIsNotUrgentGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pace giveWay
		var takes time.Duration
		send := pace.timing(func(context.Context, *v1.Event) error {
			time.Sleep(takes)
			return errors.New("refused")
		})
		for _, c := range []struct{ news, takes, idle time.Duration }{
			{quiet, 0, 0}, {0, 3 * time.Millisecond, 150 * time.Millisecond}, {quiet / 2, 3 * time.Millisecond, 150 * time.Millisecond},
			{quiet, 3 * time.Millisecond, 15 * time.Millisecond}, {0, time.Minute, maxIdle}, {quiet, 0, 0},
		} {
			pace.news()
			time.Sleep(c.news)
			began := time.Now()
			if err := pace.wait(t.Context()); err != nil || time.Since(began) != 0 {
				t.Errorf("waited for %v: %v", time.Since(began), err)
			}
			takes = c.takes
			if err := send(t.Context(), nil); err == nil {
				t.Error("the refusal got lost")
			}
			began = time.Now()
			if err := pace.wait(t.Context()); err != nil || time.Since(began) != c.idle {
				t.Errorf("after one that took %v waited for %v, not %v: %v", c.takes, time.Since(began), c.idle, err)
			}
		}
		takes = time.Minute
		_ = send(t.Context(), nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := pace.wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the end ended no wait: %v", err)
		}
	})
}
