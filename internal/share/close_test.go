package share

import (
	"context"
	"errors"
	"testing"
	"time"

	"sharevol.dev/sharevol/internal/share/helper/fakehelper"
)

func TestCloseStopsWhatRuns(t *testing.T) {
	f := newFixture(t, nil)
	removal := f.steadily(ctx, t)
	must(t, f.Close(ctx))
	if err := <-removal; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// Whatever hangs, in an operation or while a share is opened or mounted.
func TestCloseEndsWhatHangs(t *testing.T) {
	cases := map[string]func(*testing.T, fixture){
		"operation": func(t *testing.T, f fixture) { must(t, f.create(nfs, "pvc-0")); f.hang(t) },
		"opening":   func(t *testing.T, f fixture) { f.hang(t) },
		"mounting":  func(_ *testing.T, f fixture) { f.mounter.Block = make(chan struct{}) },
	}
	for name, prepare := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, func(o *Options) { o.Timeout = time.Hour })
			prepare(t, f)
			done := make(chan error, 1)
			go func() { done <- f.create(nfs, "pvc-1") }()
			time.Sleep(100 * time.Millisecond)
			short, cancel := context.WithTimeout(ctx, 4*time.Second) // as long as the program has
			defer cancel()
			must(t, f.Close(short))
			if err := <-done; err == nil {
				t.Error("no error")
			}
			if n := fakehelper.Children(t); n > 0 {
				t.Errorf("%d helpers left", n)
			}
		})
	}
}

// An operation that was on its way when the Manager closed mounts nothing.
func TestNothingIsMountedAfterClose(t *testing.T) {
	f := newFixture(t, nil)
	s, err := f.share(nfs)
	must(t, err)
	f.running.Done()
	must(t, f.Close(ctx))
	if _, err := s.begin(ctx); err == nil {
		t.Error("no error")
	}
	if calls := f.mounter.Calls(); len(calls) > 0 {
		t.Errorf("mounted %v", calls)
	}
}

func TestAnOperationThatIsCancelledBefore(t *testing.T) {
	f := newFixture(t, nil)
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := f.Create(cancelled, nfs, creation("pvc-1")); !errors.Is(err, context.Canceled) || !errors.Is(err, ErrUntouched) {
		t.Errorf("got %v", err)
	}
	if !f.state(t).Up {
		t.Error("the share was set aside for it")
	}
}
