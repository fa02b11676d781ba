package share

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sharevol.dev/sharevol/internal/share/helper"
	"sharevol.dev/sharevol/internal/share/operation"
	"sharevol.dev/sharevol/internal/volume"
)

// paced is a helper whose operations take some time. It has no process, so that tests
// with it can run in the time of synctest.
type paced struct {
	Helper
	takes func() time.Duration // nil: the server is dead, everything hangs
	once  sync.Once
	ended chan struct{}
	alive *atomic.Int32
}

func (p *paced) work(ctx context.Context) error {
	if p.takes == nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.ended:
		case <-time.After(30 * time.Second):
		}
		return ErrNoAnswer
	}
	time.Sleep(p.takes())
	return nil
}

func (p *paced) Open(ctx context.Context) error { return p.work(ctx) }
func (p *paced) Probe(context.Context) error    { return nil }
func (p *paced) PID() int                       { return 4711 }
func (p *paced) Done() <-chan struct{}          { return p.ended }

func (p *paced) End(context.Context) error {
	p.once.Do(func() {
		p.alive.Add(-1)
		close(p.ended)
	})
	return nil
}

func (p *paced) Do(ctx context.Context, _ string, _, _ any) error { return p.work(ctx) }

// pacedManager returns a Manager of shares that are there already, whose operations
// take so long, and how many helpers are alive.
func pacedManager(t *testing.T, shares map[volume.Share]func() time.Duration, change func(*Options)) (*Manager, *atomic.Int32) {
	t.Helper()
	var alive atomic.Int32
	names := map[string]func() time.Duration{}
	options := Options{Premounted: map[volume.Share]string{}}
	for share, takes := range shares {
		options.Premounted[share] = "/nonexistent"
		names[share.String()] = takes
	}
	options.Start = func(o helper.Options) (Helper, error) {
		alive.Add(1)
		return &paced{takes: names[o.Name], ended: make(chan struct{}), alive: &alive}, nil
	}
	if change != nil {
		change(&options)
	}
	m := NewManager(options)
	t.Cleanup(func() {
		must(t, m.Close(ctx))
		if n := alive.Load(); n != 0 {
			t.Errorf("%d helpers left", n)
		}
	})
	return m, &alive
}

func on(server string, i int) volume.Share {
	return volume.Share{Server: server, Path: fmt.Sprintf("/srv%d", i)}
}

func takes(d time.Duration) func() time.Duration { return func() time.Duration { return d } }

// pool does what the program's workers do: each takes the next claim of the queue, and
// one whose share was busy comes back, after a quarter of a second first and 5 s at last.
type pool struct {
	*Manager
	queue chan *pooled
	stop  chan struct{} // to be closed
	held  sync.Map      // the number of workers (*atomic.Int32) that a server has at the moment
	busy  atomic.Int32  // the answers of that kind so far
}

type pooled struct {
	share volume.Share
	tries int
	done  func()
}

func newPool(m *Manager, workers int, claims ...*pooled) *pool {
	p := &pool{Manager: m, queue: make(chan *pooled, len(claims)), stop: make(chan struct{})}
	for _, c := range claims {
		p.queue <- c
	}
	for range workers {
		go func() {
			for {
				select {
				case c := <-p.queue:
					p.serve(c)
				case <-p.stop:
					return
				}
			}
		}()
	}
	return p
}

func (p *pool) serve(c *pooled) {
	p.on(c.share.Server).Add(1)
	_, err := Do(ctx, p, Ref{Share: c.share}, operation.Create, creation("pvc-1"))
	p.on(c.share.Server).Add(-1)
	switch {
	case errors.Is(err, ErrBusy):
		p.busy.Add(1)
		wait := min(250*time.Millisecond<<min(c.tries, 10), 5*time.Second)
		c.tries++
		time.AfterFunc(wait, func() { p.queue <- c })
	case err == nil:
		c.done()
	}
}

// on returns how many workers a server has at the moment.
func (p *pool) on(server string) *atomic.Int32 {
	n, _ := p.held.LoadOrStore(server, &atomic.Int32{})
	return n.(*atomic.Int32)
}

// workers is what the program has when it is told nothing else.
const workers = 32

// As fast as if nobody looked: however many claims come at once, a healthy server does
// as many at a time as it may, and none is sent away.
func TestABurstOnAQuickServerIsServedAtFullSpeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const claims, each = 1000, 5 * time.Millisecond
		isFast := on("quick", 0)
		m, _ := pacedManager(t, map[volume.Share]func() time.Duration{isFast: takes(each)}, nil)
		var all sync.WaitGroup
		all.Add(claims)
		list := make([]*pooled, claims)
		for i := range list {
			list[i] = &pooled{share: isFast, done: all.Done}
		}
		began := time.Now()
		p := newPool(m, workers, list...)
		all.Wait()
		close(p.stop)
		if observe, ideal := time.Since(began), each*claims/(workers/4); observe > ideal*11/10 || p.busy.Load() > 0 {
			t.Errorf("took %v instead of %v, %d were sent away", observe, ideal, p.busy.Load())
		}
	})
}

// A slow server that goes on working gets no more workers than a dead one, however
// many of its claims wait: another server's claim behind them is served soon.
func TestASlowServerHoldsAQuarterOfTheWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const claims = 1000
		slow, isFast := on("slow", 0), on("quick", 0)
		var turns atomic.Int64
		m, _ := pacedManager(t, map[volume.Share]func() time.Duration{
			isFast: takes(5 * time.Millisecond),
			slow: func() time.Duration { // something ends all the time
				return time.Duration(500+turns.Add(1)*137%2000) * time.Millisecond
			},
		}, nil)
		served := make(chan struct{})
		list := make([]*pooled, claims, claims+1)
		for i := range list {
			list[i] = &pooled{share: slow, done: func() {}}
		}
		list = append(list, &pooled{share: isFast, done: func() { close(served) }})
		began := time.Now()
		p := newPool(m, workers, list...)
		<-served
		if observe := time.Since(began); observe > 3*time.Second {
			t.Errorf("the other server's claim was served after %v", observe)
		}
		for range 1000 {
			time.Sleep(10 * time.Millisecond)
			synctest.Wait()
			if n := p.on("slow").Load(); n > workers/4 {
				t.Fatalf("%d workers are on the slow server after %v", n, time.Since(began))
			}
		}
		close(p.stop)
	})
}

// Its shares are all on one machine, whatever they and it are called.
func TestADeadServerHoldsAQuarterOfTheWorkersWithAllItsShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shares := map[volume.Share]func() time.Duration{}
		var list []*pooled
		for i := range workers {
			share := on([]string{"nfs", "NFS", "nfs."}[i%3], i%8)
			shares[share] = nil
			list = append(list, &pooled{share: share})
		}
		m, _ := pacedManager(t, shares, nil)
		p := newPool(m, workers, list...)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if n := p.on("nfs").Load() + p.on("NFS").Load() + p.on("nfs.").Load(); n != workers/4 {
			t.Errorf("one dead server holds %d of %d workers", n, workers)
		}
		close(p.stop)
	})
}
