package share

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sharevol.dev/sharevol/internal/share/helper"
	"sharevol.dev/sharevol/internal/volume"
)

// immortal is a helper that SIGKILL does not end.
type immortal struct {
	Helper
	done chan struct{}
}

func (i *immortal) Open(context.Context) error  { return nil }
func (i *immortal) Probe(context.Context) error { return nil }
func (i *immortal) PID() int                    { return 4711 }
func (i *immortal) Done() <-chan struct{}       { return i.done }
func (i *immortal) Do(context.Context, string, any, any) error {
	return helper.ErrNoAnswer
}

func (i *immortal) End(ctx context.Context) error {
	select {
	case <-i.done:
		return nil
	case <-ctx.Done():
	case <-time.After(10 * time.Millisecond):
	}
	return errors.New("it does not end")
}

// As long as the old helper is there, however long that is, there is no second one,
// and nothing is unmounted under it.
func TestAHelperThatDoesNotDieGetsNoSecond(t *testing.T) {
	first := &immortal{done: make(chan struct{})}
	var started atomic.Int32
	f := newFixture(t, func(o *Options) {
		start := o.Start
		o.Start = func(options helper.Options) (Helper, error) {
			if started.Add(1) == 1 {
				return first, nil
			}
			return start(options)
		}
	})
	if err := f.create(nfs, "pvc-1"); !errors.Is(err, ErrNoAnswer) || errors.Is(err, ErrUntouched) {
		t.Errorf("got %v", err)
	}
	eventually(t, "it is tried several times", func() bool { return f.events.count("probe failed") > 3 })
	if err := f.create(nfs, "pvc-1"); !errors.Is(err, ErrNoAnswer) || !errors.Is(err, ErrUntouched) || !strings.Contains(err.Error(), "does not end") {
		t.Errorf("got %v", err)
	}
	if n := started.Load(); n != 1 || len(f.mounter.Calls()) != 1 {
		t.Errorf("%d helpers, mounted %d times", n, len(f.mounter.Calls()))
	}
	close(first.done)
	f.recovers(t)
	must(t, f.create(nfs, "pvc-1"))
	if n := started.Load(); n != 2 {
		t.Errorf("%d helpers", n)
	}
}

// Nor under other mount options.
func TestAHelperThatDoesNotDieGetsNoSecondUnderOtherOptions(t *testing.T) {
	first := &immortal{done: make(chan struct{})}
	var started atomic.Int32
	f := newFixture(t, func(o *Options) {
		start := o.Start
		o.Start = func(options helper.Options) (Helper, error) {
			if started.Add(1) == 1 {
				return first, nil
			}
			return start(options)
		}
	})
	if err := f.create(nfs, "pvc-1"); !errors.Is(err, ErrNoAnswer) {
		t.Fatalf("got %v", err)
	}
	other := Ref{Share: nfs.Share, MountOptions: []string{"nfsvers=4.1"}}
	if err := f.create(other, "pvc-1"); !errors.Is(err, ErrNoAnswer) || !errors.Is(err, ErrUntouched) || started.Load() != 1 {
		t.Errorf("%v, %d helpers", err, started.Load())
	}
	// Another share of that server has nothing to do with it.
	beside := Ref{Share: volume.Share{Server: "nfs", Path: "/beside"}}
	f.mounter.Export("nfs:/beside", t.TempDir())
	must(t, f.create(beside, "pvc-1"))
	close(first.done)
	f.recovers(t)
	f.recovers(t)
	must(t, f.create(other, "pvc-1"))
}

// Closing does not wait for it longer than it may.
func TestCloseWithAHelperThatDoesNotDie(t *testing.T) {
	first := &immortal{done: make(chan struct{})}
	f := newFixture(t, func(o *Options) {
		o.Start = func(helper.Options) (Helper, error) { return first, nil }
	})
	_ = f.create(nfs, "pvc-1")
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	started := time.Now()
	if err := f.Close(short); err == nil {
		t.Error("no error")
	}
	if observe := time.Since(started); observe > 2*time.Second {
		t.Errorf("took %v", observe)
	}
	close(first.done)
}
