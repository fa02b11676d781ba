package election

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"

	"sharevol.dev/sharevol/internal/election/fakelease"
	"sharevol.dev/sharevol/internal/fence"
)

// patience bounds every wait. It is long: the machines that run this are slow at times.
const patience = 30 * time.Second

// process is one that takes part in an election, in this process of ours.
type process struct {
	fence   *fence.Fence
	stop    context.CancelFunc
	leading chan struct{} // closed when it leads
	over    chan struct{} // closed when its lead's context has ended
	ended   chan error    // what Run returned

	mu            sync.Mutex
	first, latest time.Duration // writes, on the boot-time clock
}

// start lets a process take part. finish is what its lead does once its context has ended.
func start(t *testing.T, server *fakelease.Server, identity string, options Options, finish func() error) *process {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{stop: cancel, leading: make(chan struct{}), over: make(chan struct{}), ended: make(chan error, 1)}
	if options.Fence == nil {
		options.Fence = &fence.Fence{}
	}
	p.fence = options.Fence
	if options.LeaseDuration == 0 {
		options.LeaseDuration = 2 * time.Second
	}
	options.Client = fakelease.Client(t, server.URL, identity)
	options.Namespace, options.Name, options.Identity = fakelease.Namespace, fakelease.Name, identity
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.ended <- Run(ctx, options, func(ctx context.Context) error {
			close(p.leading)
			p.write(ctx)
			close(p.over)
			return finish()
		})
	}()
	t.Cleanup(func() {
		cancel()
		await(t, done)
	})
	return p
}

func nothing() error { return nil }

// write does what a leader does until its context ends: writes while it may. It
// tries for some time after, as workers do that have not heard yet.
func (p *process) write(ctx context.Context) {
	for after := 0; after < 20; {
		if p.fence.Check() == nil {
			p.mu.Lock()
			p.latest = fence.BootTime()
			if p.first == 0 {
				p.first = p.latest
			}
			p.mu.Unlock()
		}
		if ctx.Err() != nil {
			after++
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (p *process) writes() (first, latest time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.first, p.latest
}

func await[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatal("nothing happened")
		panic("unreachable")
	}
}

// within waits until condition is true.
func within(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// The lease lasts longer than the test may: b leads because a released it.
func TestOneLeadsAndHandsOverAtOnce(t *testing.T) {
	t.Parallel()
	server := fakelease.New(t)
	leaders := make(chan string, 10)
	long := Options{LeaseDuration: 2 * patience, RetryPeriod: 50 * time.Millisecond}
	a := start(t, server, "a", long, nothing)
	await(t, a.leading)
	long.OnNewLeader = func(identity string) { leaders <- identity }
	b := start(t, server, "b", long, nothing)
	if leader := await(t, leaders); leader != "a" {
		t.Errorf("b sees %q lead", leader)
	}
	select {
	case <-b.leading:
		t.Error("b leads beside a")
	default:
	}
	a.stop()
	if err := await(t, a.ended); err != nil {
		t.Errorf("a ended with %v", err)
	}
	if a.fence.Check() == nil {
		t.Error("a may write after it gave the lease up")
	}
	await(t, b.leading)
	leader := await(t, leaders)
	if leader == "" {
		leader = await(t, leaders) // b came by while nobody held it
	}
	if leader != "b" {
		t.Errorf("b sees %q lead", leader)
	}
	within(t, "b writes", func() bool { first, _ := b.writes(); return first != 0 })
	_, last := a.writes()
	if first, _ := b.writes(); first <= last {
		t.Errorf("b wrote at %v, a until %v", first, last)
	}
}

// The stop of a program takes time, in which its work may still be written.
func TestTheLeaseIsKeptWhileWorkEnds(t *testing.T) {
	t.Parallel()
	server := fakelease.New(t)
	release := make(chan struct{})
	a := start(t, server, "a", Options{}, func() error { <-release; return nil })
	await(t, a.leading)
	b := start(t, server, "b", Options{}, nothing)
	a.stop()
	await(t, a.over)
	until := a.fence.Until()
	within(t, "it is renewed for longer than it lasts", func() bool { return a.fence.Until() > until+2*time.Second })
	if err := a.fence.Check(); err != nil || server.Holder() != "a" {
		t.Errorf("%q holds the lease, and a's fence: %v", server.Holder(), err)
	}
	select {
	case <-b.leading:
		t.Error("b leads while a's work goes on")
	default:
	}
	close(release)
	if err := await(t, a.ended); err != nil {
		t.Errorf("a ended with %v", err)
	}
	await(t, b.leading)
}

// A renewal is under way when the lead ends: the release must win against it.
func TestReleaseAfterAConflict(t *testing.T) {
	t.Parallel()
	server := fakelease.New(t)
	a := start(t, server, "a", Options{}, func() error {
		var once sync.Once
		server.Fail(func(_ http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPut {
				once.Do(func() { server.Edit(func(*coordinationv1.Lease) {}) })
			}
			return false
		})
		return nil
	})
	await(t, a.leading)
	a.stop()
	if err := await(t, a.ended); err != nil || server.Holder() != "" {
		t.Errorf("ended with %v, held by %q", err, server.Holder())
	}
}

// What failed may have left work behind: others wait for the end of the lease.
func TestALeadThatFailsKeepsTheLease(t *testing.T) {
	t.Parallel()
	server := fakelease.New(t)
	failed := errors.New("failed")
	held := &fence.Fence{}
	err := Run(t.Context(), Options{
		Client: fakelease.Client(t, server.URL, "a"), Namespace: fakelease.Namespace, Name: fakelease.Name, Identity: "a", Fence: held,
	}, func(context.Context) error { return failed })
	if !errors.Is(err, failed) || server.Holder() != "a" || held.Check() != nil {
		t.Errorf("ended with %v, held by %q, fence %v", err, server.Holder(), held.Check())
	}
}

func TestACandidateThatStopsLeavesTheLeaseAlone(t *testing.T) {
	t.Parallel()
	server := fakelease.New(t)
	a := start(t, server, "a", Options{LeaseDuration: 60 * time.Second}, nothing)
	await(t, a.leading)
	seen := make(chan string, 10)
	b := start(t, server, "b", Options{OnNewLeader: func(identity string) { seen <- identity }}, nothing)
	await(t, seen)
	b.stop()
	if err := await(t, b.ended); err != nil || server.Holder() != "a" || b.fence.Check() == nil {
		t.Errorf("ended with %v, held by %q, fence %v", err, server.Holder(), b.fence.Check())
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	used := &fence.Fence{}
	used.Revoke("given up")
	server := fakelease.New(t)
	valid := func() Options {
		return Options{Client: fakelease.Client(t, server.URL, "a"), Namespace: "n", Name: "l", Identity: "a", Fence: &fence.Fence{}}
	}
	for name, change := range map[string]func(*Options){
		"client":        func(o *Options) { o.Client = nil },
		"identity":      func(o *Options) { o.Identity = "" },
		"fence":         func(o *Options) { o.Fence = nil },
		"used":          func(o *Options) { o.Fence = used },
		"been used":     func(o *Options) { o.Fence = fence.Unfenced() },
		"whole seconds": func(o *Options) { o.LeaseDuration = 1500 * time.Millisecond },
		"must be whole": func(o *Options) { o.LeaseDuration = -time.Second },
		"must fit":      func(o *Options) { o.RenewDeadline = 9 * time.Second },
		"must fit into": func(o *Options) { o.RetryPeriod = 3 * time.Second },
	} {
		options := valid()
		change(&options)
		if err := Run(t.Context(), options, nil); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// The arithmetic of the package comment, with the numbers that are in force.
func TestDefaultsKeepTheirPromises(t *testing.T) {
	t.Parallel()
	o := Options{Client: fakelease.Client(t, "http://localhost", "a"), Namespace: "n", Name: "l", Identity: "a", Fence: &fence.Fence{}}
	if err := o.complete(); err != nil {
		t.Fatal(err)
	}
	const worstJitter = 2.2 // 1 + leaderelection.JitterFactor
	looks := time.Duration(2 * worstJitter * float64(o.RetryPeriod))
	if takeover := o.LeaseDuration + looks + 3*time.Second; takeover >= 20*time.Second {
		t.Errorf("a takeover takes up to %v with requests of a second each", takeover)
	}
	if needed := o.RetryPeriod + o.RenewDeadline + AckTimeout + o.RetryPeriod; needed >= o.fenceLength() {
		t.Errorf("an absence of %v needs a fence of %v, it is %v", o.RenewDeadline, needed, o.fenceLength())
	}
	// Our clock a twelfth slow, theirs a twelfth fast.
	if ours, theirs := float64(o.fenceLength())/(11./12), float64(o.LeaseDuration)/(13./12); ours >= theirs {
		t.Errorf("with clocks that are corrected we write for %v, others wait for %v", time.Duration(ours), time.Duration(theirs))
	}
}
