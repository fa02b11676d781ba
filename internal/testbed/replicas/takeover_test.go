package replicas

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"sharevol.dev/sharevol/internal/testbed/controlplane"
)

const (
	takeovers       = 6   // every second one of a frozen leader
	claimsPerWave   = 200 // half of them in a burst
	claimsPerWaking = 60  // likewise, in the second wave of a round in which the leader is frozen
	wokenMustEndIn  = 10 * time.Second
	takeoverTestMax = 6 * time.Minute
)

// pair is a leader and the one that stands by.
type pair struct{ leader, standby *controlplane.Provisioner }

func (p pair) alive() error {
	for _, one := range []*controlplane.Provisioner{p.leader, p.standby} {
		if state := one.State(); state != nil {
			return fmt.Errorf("%s ended by itself: %s", one.Name(), state)
		}
	}
	return nil
}

// The leader is killed, or frozen until another one leads and then woken, in the middle of claims being made
// and deleted: the other takes over within the time that is promised, the woken one ends by itself, and no
// claim, directory or record is lost, left over, or somebody else's.
func TestTakeover(t *testing.T) {
	t.Parallel()
	ctx, lab := theLab(t, takeoverTestMax)
	p := newPlace(ctx, t, lab, lab.cluster, "takeover", "takeover", plain, nested)
	ledger := newLedger(p)
	two := pair{p.provisioner(t, "a", lab.program), p.provisioner(t, "b", lab.program)}
	start(ctx, t, two.leader)
	check(t, waitFor(ctx, "a leader", takeoverPromise, func(ctx context.Context) (bool, string, error) {
		now, err := p.lease(ctx)
		return now.holder != "", fmt.Sprint(err), nil
	}))
	start(ctx, t, two.standby)
	var slowest time.Duration
	for round := range takeovers {
		hurt := two.killLeader
		if round%2 == 1 {
			hurt = two.freezeLeader
		}
		took := hurt(ctx, t, ledger, round)
		slowest = max(slowest, took)
		two.leader, two.standby = two.standby, two.leader
	}
	check(t, ledger.settle(ctx, two.alive))
	restart(ctx, t, two.standby)
	restart(ctx, t, two.leader)
	ledger.endState(ctx, t)
	kept := len(ledger.names())
	check(t, ledger.removeAll(ctx))
	check(t, ledger.settle(ctx, two.alive))
	ledger.endState(ctx, t)
	empty(t, p.share)
	t.Logf("%d takeovers, the slowest after %s; %d claims, %d of them deleted meanwhile",
		takeovers, slowest.Round(100*time.Millisecond), len(ledger.claims), len(ledger.claims)-kept)
}

// wave makes count claims and deletes half as many, of these and older ones. In the middle there is a burst
// of half of them; burst is closed at its end, when most are under way. done waits until the API
// server has all of these requests.
func wave(ctx context.Context, l *ledger, name string, count int) (burst <-chan struct{}, done func() error) {
	var group errgroup.Group
	middle := make(chan struct{})
	over := sync.OnceFunc(func() { close(middle) })
	group.Go(func() error {
		defer over()
		for i := range count / 2 {
			one := func(ctx context.Context, name string) error { return l.create(ctx, name, []kind{plain, nested}[i%2]) }
			if i == count/4 {
				if err := atOnce(ctx, numbered(name+"-burst", count/2), one); err != nil {
					return err
				}
				over()
			}
			if err := one(ctx, fmt.Sprintf("%s-%d", name, i)); err != nil {
				return err
			}
			if names := l.names(); i%7 > 0 {
				if err := l.remove(ctx, names[rand.IntN(len(names))]); err != nil {
					return err
				}
			}
			time.Sleep(10 * time.Millisecond)
		}
		return nil
	})
	return middle, group.Wait
}

// killLeader kills the leader in the middle of a wave, and starts it again once the other leads.
func (p pair) killLeader(ctx context.Context, t *testing.T, l *ledger, round int) time.Duration {
	before, err := l.lease(ctx)
	check(t, err)
	burst, done := wave(ctx, l, fmt.Sprintf("round-%d", round), claimsPerWave)
	<-burst
	check(t, p.leader.Kill())
	hurt := time.Now()
	v, err := l.look(ctx)
	check(t, err)
	if len(v.making)+len(v.ending) == 0 {
		t.Errorf("round %d: the leader had nothing to do", round)
	}
	took := l.takenOver(ctx, t, before, hurt)
	check(t, errors.Join(done(), p.leader.Gone(ctx)))
	start(ctx, t, p.leader)
	check(t, l.settle(ctx, p.alive))
	t.Logf("round %d: killed with %d claims and volumes under way; another led after %s, all was done after %s",
		round, len(v.making)+len(v.ending), took.Round(100*time.Millisecond), time.Since(hurt).Round(100*time.Millisecond))
	return took
}

// freezeLeader freezes the leader in the middle of a wave, and wakes it in the middle of another, when the
// other leads. The woken one must end by itself, and say so by its status.
func (p pair) freezeLeader(ctx context.Context, t *testing.T, l *ledger, round int) time.Duration {
	before, err := l.lease(ctx)
	check(t, err)
	burst, done := wave(ctx, l, fmt.Sprintf("round-%d", round), claimsPerWave)
	<-burst
	check(t, p.leader.Freeze())
	hurt := time.Now()
	v, err := l.look(ctx)
	check(t, err)
	if len(v.making)+len(v.ending) == 0 {
		t.Errorf("round %d: the leader had nothing to do", round)
	}
	took := l.takenOver(ctx, t, before, hurt)
	check(t, done())
	burst, done = wave(ctx, l, fmt.Sprintf("round-%d-woken", round), claimsPerWaking)
	<-burst
	woken := time.Now()
	check(t, p.leader.Thaw())
	var state *os.ProcessState
	select {
	case <-p.leader.Exited():
		if state = p.leader.State(); state.ExitCode() <= 0 {
			t.Errorf("the woken leader ended with %s, not by itself with a status that is not 0", state)
		}
	case <-time.After(wokenMustEndIn):
		t.Fatalf("the woken leader still runs after %s", wokenMustEndIn)
	}
	ended := time.Since(woken)
	check(t, errors.Join(done(), p.leader.Gone(ctx)))
	start(ctx, t, p.leader)
	check(t, l.settle(ctx, p.alive))
	now, err := l.lease(ctx)
	check(t, err)
	if now.transitions != before.transitions+1 {
		t.Errorf("the woken leader took the Lease back: %+v, %+v", before, now)
	}
	t.Logf("round %d: frozen with %d claims and volumes under way; another led after %s; woken, it ended after %s with %s",
		round, len(v.making)+len(v.ending), took.Round(100*time.Millisecond), ended.Round(time.Millisecond), state)
	return took
}
