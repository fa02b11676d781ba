// Package election lets one of several processes lead, by a Lease of the API server
// (coordination.k8s.io/v1, in Kubernetes since 1.14), and tells the leader until
// when it may write.
//
// client-go's elector does the protocol. Around it is a Fence: the point on the
// boot-time clock until which this process may write. It is moved by our own
// successful writes of the Lease only, so it needs no agreement of clocks: others
// count LeaseDuration from when they see a renewal, we count five sixths of it from
// before we send it.
//
// # Why five sixths
//
// If the clocks of two machines ran alike no margin would be needed. They don't
// while time is corrected: ntpd slews by at most 0.05 %, chrony by up to a twelfth
// (its maxslewrate). If ours loses a twelfth and the other's gains one, ours must
// stop after (11/12)/(13/12) = 11/13 of the duration; 5/6 is less than that. With
// clocks that run alike the sixth, 2 s, is for what was allowed just before the
// fence and is on its way still.
//
// # How long a takeover takes
//
// Candidates look at the lease every RetryPeriod to 2.2 times that (client-go's
// jitter). At worst a leader is killed or frozen just after a renewal, which the
// only candidate sees 2.2 periods later, and it looks again 2.2 periods after that
// has run out: with the defaults 12 s + 2 * 2.2 * 1 s = 16.4 s, and the time of three
// requests. That is under 20 s unless these take more than a second each.
//
// # How long the API server may be away
//
// RenewDeadline, 6 s. At worst it goes away one period after the last renewal (1 s),
// for 6 s; then an attempt on a dead connection ends within AckTimeout (1.5 s), and
// the next follows a period later (1 s): 9.5 s, and the fence holds for 10 s. A
// server that is slow but there may take half of RenewDeadline for each call.
//
// # Freezes
//
// A process that was stopped (SIGSTOP, a machine that slept) wakes with its fence run
// out: every write that asks it is refused from the first instant on. Run looks at
// the fence by itself, however stuck the elector may be, and returns fence.ErrLost.
// client-go's own watchdog (HealthzAdaptor) is not needed: it would have kubelet
// restart a process that ends by itself. A virtual machine that its host paused does
// not see the time that went by; there the next renewal finds the other leader, a
// period later at most, and what is written until then must be harmless by itself.
package election

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/klog/v2"

	"sharevol.dev/sharevol/internal/fence"
)

// DefaultLeaseDuration is how long others wait for a leader that says nothing.
const DefaultLeaseDuration = 12 * time.Second

// AckTimeout is for the Client, see kubeclient.Options: how soon it must notice that
// the API server does not acknowledge anything any more.
const AckTimeout = 1500 * time.Millisecond

// The ends of Run: how long it waits for a lead whose lease is lost, for the elector
// to stop, and for the release.
const (
	lostWait       = time.Second
	stopWait       = time.Second
	releaseTimeout = 2 * time.Second
)

// Options of an election. The durations have defaults that fit together.
type Options struct {
	// Client makes the calls. It must be one of the election's own: a renewal must
	// not wait behind the controller's requests in a rate limiter, and a client that
	// asks the Fence could not get the lease in the first place. It should notice a
	// network that drops packets within AckTimeout.
	Client kubernetes.Interface
	// Namespace and Name of the Lease.
	Namespace, Name string
	// Identity tells this process from every other that may be alive at the same
	// time. A process that starts with the identity of a dead one leads at once: a
	// restarted container need not wait if its identity is the name of its pod.
	Identity string
	// Fence is moved while this process leads. It must be new.
	Fence *fence.Fence
	// LeaseDuration is in whole seconds, as the Lease has it. DefaultLeaseDuration when zero.
	LeaseDuration time.Duration
	// RenewDeadline is how long the API server may be away without costing the lead,
	// and twice what one call may take. Half of LeaseDuration when zero.
	RenewDeadline time.Duration
	// RetryPeriod is the time between renewals, and the least time between two looks
	// of a candidate. A twelfth of LeaseDuration when zero.
	RetryPeriod time.Duration
	// OnNewLeader, if not nil, is called with the identity of each new leader, this
	// process too, from a goroutine of its own.
	OnNewLeader func(identity string)
}

// fenceLength is how long a renewal counts; see the package.
func (o *Options) fenceLength() time.Duration { return o.LeaseDuration - o.LeaseDuration/6 }

func (o *Options) complete() error {
	if o.LeaseDuration == 0 {
		o.LeaseDuration = DefaultLeaseDuration
	}
	if o.RenewDeadline == 0 {
		o.RenewDeadline = o.LeaseDuration / 2
	}
	if o.RetryPeriod == 0 {
		o.RetryPeriod = o.LeaseDuration / 12
	}
	var errs []error
	if o.Client == nil || o.Fence == nil || o.Namespace == "" || o.Name == "" || o.Identity == "" {
		errs = append(errs, errors.New("client, fence, namespace, name and identity are required"))
	}
	if o.Fence != nil && (o.Fence.EverHeld() || o.Fence.Expired()) {
		errs = append(errs, errors.New("the fence has been used"))
	}
	if o.LeaseDuration < time.Second || o.LeaseDuration%time.Second != 0 {
		errs = append(errs, fmt.Errorf("lease duration %v: must be whole seconds", o.LeaseDuration))
	}
	if o.RenewDeadline < 0 || o.RetryPeriod < 0 || o.RenewDeadline+2*o.RetryPeriod > o.fenceLength() {
		errs = append(errs, fmt.Errorf("renew deadline %v and twice the retry period %v must fit into %v, five sixths of the lease",
			o.RenewDeadline, o.RetryPeriod, o.fenceLength()))
	}
	return errors.Join(errs...)
}

// Run waits until this process is elected, and then calls lead, once. It returns
//
//   - nil when lead returned nil, or when ctx ended before this process was elected.
//     The lease is kept while lead comes to its end. Then, and only then, the fence
//     is ended and the lease released, so that another process leads at once.
//   - lead's error. The lease and the fence run out by themselves: work may go on.
//   - fence.ErrLost when the lease was lost. The fence is over before lead's context ends.
//     Run waits a second for lead, which may still run when Run returns: the caller
//     must end the program.
//
// lead's context ends when ctx does or the lease is lost. lead must return nil only
// when all that it started has ended. After lead Run takes 3 s at most.
func Run(ctx context.Context, options Options, lead func(ctx context.Context) error) error {
	if err := options.complete(); err != nil {
		return fmt.Errorf("leader election: %w", err)
	}
	lease := newLock(options)
	started, ended := make(chan struct{}), make(chan struct{})
	elector, err := newElector(options, lease, started)
	if err != nil {
		return fmt.Errorf("leader election: %w", err)
	}
	// Not under ctx: the lease is renewed until lead has come to its end.
	elect, stop := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(ended)
		elector.Run(elect)
	}()
	select {
	case <-started:
		err = hold(ctx, options.Fence, options.RetryPeriod, ended, lead)
	case <-ctx.Done():
	case <-ended:
		err = fmt.Errorf("%w: the election ended", fence.ErrLost)
	}
	stop()
	stopped := waitFor(ended, stopWait)
	if err != nil {
		return err
	}
	options.Fence.Revoke("given up")
	if !options.Fence.EverHeld() {
		return nil
	}
	err = errors.New("a call hangs")
	if stopped {
		releasing, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
		defer cancel()
		err = lease.release(releasing)
	}
	if err != nil {
		klog.ErrorS(err, "Lease not released; it runs out by itself", "lease", lease.Describe())
	}
	return nil
}

// newElector returns client-go's elector, which closes started when it has the lease.
func newElector(options Options, lease *lock, started chan<- struct{}) (*leaderelection.LeaderElector, error) {
	return leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock:          lease,
		Name:          options.Name,
		LeaseDuration: options.LeaseDuration,
		// As long as the fence can hold: that ends the lead, not the elector.
		RenewDeadline: options.fenceLength() - options.RetryPeriod,
		RetryPeriod:   options.RetryPeriod,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) { close(started) },
			OnStoppedLeading: func() {},
			OnNewLeader:      options.OnNewLeader,
		},
	})
}

// hold runs lead as long as the fence holds, which it looks at every so often, and
// the elector has not ended.
func hold(ctx context.Context, fence *fence.Fence, every time.Duration, ended <-chan struct{}, lead func(context.Context) error) error {
	if err := fence.Check(); err != nil {
		return err // frozen between the election and here
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var err error
	led := make(chan struct{})
	go func() {
		defer close(led)
		err = lead(ctx)
	}()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for fence.Check() == nil {
		select {
		case <-led:
			return err
		case <-ended:
			fence.Revoke("not renewed, given up")
		case <-tick.C:
		}
	}
	lost := fence.Check()
	cancel()
	waitFor(led, lostWait)
	return lost
}

// waitFor waits for done, but not longer than limit.
func waitFor(done <-chan struct{}, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}
