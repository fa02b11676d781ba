package share

import (
	"context"
	"errors"
	"testing"
	"time"

	"sharevol.dev/sharevol/internal/mount"
	"sharevol.dev/sharevol/internal/mount/fakemount"
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

// halfMounter mounts, and says that it has failed and could not be undone: what
// mount.Mounter does when umount(8) fails after a mount(8) that was killed.
type halfMounter struct{ *fakemount.Mounter }

func (m halfMounter) Mount(ctx context.Context, spec mount.Spec, target string) error {
	return errors.Join(m.Mounter.Mount(ctx, spec, target), errors.New("still mounted"))
}

func TestCloseUnmountsWhatAFailedMountHasLeft(t *testing.T) {
	f := newFixture(t, func(o *Options) {
		o.Mounter = halfMounter{o.Mounter.(*fakemount.Mounter)}
		o.ProbeEvery = time.Hour
	})
	if err := f.create(nfs, "pvc-1"); err == nil {
		t.Error("no error")
	}
	target := f.mounter.Calls()[0].Target
	if layers, _ := f.mounter.Layers(target); len(layers) != 1 {
		t.Fatalf("mounted %v: this test says nothing", layers)
	}
	must(t, f.Close(ctx))
	if layers, _ := f.mounter.Layers(target); len(layers) > 0 || there(t, target) {
		t.Errorf("left at the mount point: %v", layers)
	}
}

// deafMounter unmounts in its own time, whatever its context says.
type deafMounter struct {
	*fakemount.Mounter
	answer chan struct{}
}

func (m deafMounter) Unmount(ctx context.Context, target string) error {
	if len(m.Calls()) > 0 {
		<-m.answer
	}
	return m.Mounter.Unmount(ctx, target)
}

func TestCloseReturnsWithItsContext(t *testing.T) {
	answer := make(chan struct{})
	f := newFixture(t, func(o *Options) { o.Mounter = deafMounter{o.Mounter.(*fakemount.Mounter), answer} })
	must(t, f.create(nfs, "pvc-1"))
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	closed := make(chan error, 1)
	go func() { closed <- f.Close(short) }()
	select {
	case err := <-closed:
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("it waits for what does not end")
	}
	close(answer)
	eventually(t, "it is unmounted in the end", func() bool { layers, _ := f.mounter.Layers(f.mounter.Calls()[0].Target); return len(layers) == 0 })
}

func TestAnOperationThatIsCancelledBefore(t *testing.T) {
	f := newFixture(t, nil)
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := f.Create(cancelled, nfs, creation("pvc-1")); !errors.Is(err, context.Canceled) || !errors.Is(err, ErrUntouched) {
		t.Errorf("got %v", err)
	}
	if !f.state(t).Up {
		t.Error("the share became unavailable for it")
	}
}
