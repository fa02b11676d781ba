package share

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"sharevol.dev/sharevol/internal/share/operation"
	"sharevol.dev/sharevol/internal/volume"
)

// What a new leader does: it looks through the records of all shares, one after the other.
func TestManySharesHaveFewHelpers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const servers, limit = 60, 16
		shares := map[volume.Share]func() time.Duration{}
		for i := range servers {
			shares[on("nfs", i)] = takes(5 * time.Millisecond)
		}
		m, alive := pacedManager(t, shares, nil)
		for share := range shares {
			if _, err := Do(ctx, m, Ref{Share: share}, operation.Records, "cluster"); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if n := alive.Load(); n > limit {
				t.Fatalf("%d helpers", n)
			}
		}
		if n := alive.Load(); n != limit {
			t.Errorf("%d helpers at the end: no more than needed are to be ended", n)
		}
	})
}

func TestTheHelperThatHasRestedLongestMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shares := map[volume.Share]func() time.Duration{}
		for i := range 4 {
			shares[on("nfs", i)] = takes(5 * time.Millisecond)
		}
		m, _ := pacedManager(t, shares, func(o *Options) { o.Helpers = 3 })
		for _, i := range []int{0, 1, 2, 0, 3} { // 1 has rested longest
			_, err := Do(ctx, m, Ref{Share: on("nfs", i)}, operation.Create, creation("pvc-1"))
			must(t, err)
			time.Sleep(time.Second)
		}
		for _, state := range m.States() {
			if has, want := state.PID != 0, state.Share != on("nfs", 1); has != want || !state.Up {
				t.Errorf("%+v", state)
			}
		}
	})
}

// Helpers at work are left alone: another share's operation waits, though not for long,
// and that is no fault of its share.
func TestAShareForWhichThereIsNoHelperIsBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const long = 10 * time.Second
		m, alive := pacedManager(t, map[volume.Share]func() time.Duration{
			on("a", 0): takes(long), on("b", 0): takes(long), on("c", 0): takes(time.Millisecond),
		}, func(o *Options) { o.Helpers = 2 })
		results := make(chan error, 2)
		for _, server := range []string{"a", "b"} {
			go func() {
				_, err := Do(ctx, m, Ref{Share: on(server, 0)}, operation.Create, creation("pvc-1"))
				results <- err
			}()
		}
		time.Sleep(long + time.Second) // the first 10 s they are opened
		began := time.Now()
		_, err := Do(ctx, m, Ref{Share: on("c", 0)}, operation.Create, creation("pvc-1"))
		if observe := time.Since(began); !errors.Is(err, ErrBusy) || !errors.Is(err, ErrUntouched) || observe > 2*time.Second {
			t.Errorf("%v after %v", err, observe)
		}
		must(t, errors.Join(<-results, <-results))
		_, err = Do(ctx, m, Ref{Share: on("c", 0)}, operation.Create, creation("pvc-1"))
		must(t, err)
		if synctest.Wait(); alive.Load() != 2 {
			t.Errorf("%d helpers", alive.Load())
		}
	})
}

// However many shares of dead servers are tried again and again, others find a place.
func TestDeadSharesLeavePlacesToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shares := map[volume.Share]func() time.Duration{}
		for i := range 20 {
			shares[on("dead", i)] = nil
		}
		for i := range 4 {
			shares[on("ok", i)] = takes(time.Millisecond)
		}
		m, alive := pacedManager(t, shares, func(o *Options) { o.Helpers = 8 })
		for i := range 20 {
			if _, err := Do(ctx, m, Ref{Share: on("dead", i)}, operation.Create, creation("pvc-1")); err == nil {
				t.Error("no error")
			}
		}
		for range 20 {
			time.Sleep(7 * time.Second)
			for i := range 4 {
				began := time.Now()
				_, err := Do(ctx, m, Ref{Share: on("ok", i)}, operation.Create, creation("pvc-1"))
				if observe := time.Since(began); err != nil || observe > time.Second {
					t.Fatalf("%v after %v, with %d helpers", err, observe, alive.Load())
				}
			}
			if n := alive.Load(); n > 8 {
				t.Errorf("%d helpers", n)
			}
		}
	})
}
