package replicas

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

const (
	kills        = 100
	claimsAlive  = 40 // about how many there are at a time
	killsTestMax = 6 * time.Minute
)

// load makes and deletes claims until it is told to stop, whatever becomes of them.
type load struct {
	stop   context.CancelFunc
	ended  chan struct{}
	failed error // once ended
}

func startLoad(ctx context.Context, l *ledger, pause time.Duration) *load {
	ctx, cancel := context.WithCancel(ctx)
	it := &load{stop: cancel, ended: make(chan struct{})}
	go func() {
		defer close(it.ended)
		for i := 0; ctx.Err() == nil && it.failed == nil; i++ {
			it.failed = loadOne(ctx, l, i)
			time.Sleep(pause)
		}
	}()
	return it
}

// loadOne makes a claim, and deletes another where there are enough: mostly an old one, at times one that was
// only just made.
func loadOne(ctx context.Context, l *ledger, i int) error {
	whole := context.WithoutCancel(ctx) // a call that is cut off may have taken effect, and the ledger not know
	name := fmt.Sprintf("load-%d", i)
	if err := l.create(whole, name, allKinds[i%len(allKinds)]); err != nil {
		return err
	}
	names := l.names()
	if len(names) < claimsAlive {
		return nil
	}
	if rand.IntN(4) > 0 {
		name = names[rand.IntN(len(names))]
	}
	return l.remove(whole, name)
}

func (it *load) end() error {
	it.stop()
	<-it.ended
	return it.failed
}

// The program is killed a hundred times, at random moments from its start on, while claims of all kinds are
// made and deleted: every second time its helpers die with it, as in a container, else they must end by themselves.
func TestRandomKills(t *testing.T) {
	t.Parallel()
	ctx, lab := theLab(t, killsTestMax)
	p := newPlace(ctx, t, lab, lab.cluster, "kills", "kills", allKinds...)
	ledger, provisioner := newLedger(p), p.provisioner(t, "a", lab.program)
	pod := podName + "=kills-0" // as in a pod, whose restarted container need not wait for its own Lease
	began := time.Now()
	load := startLoad(ctx, ledger, 15*time.Millisecond)
	var making, ending, hit int
	for i := range kills {
		check(t, provisioner.Start(ctx, pod))
		if i%5 > 0 { // else it may be killed before it has done anything
			check(t, provisioner.Ready(ctx))
		}
		time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond)
		if i%2 == 0 {
			check(t, provisioner.KillAll())
		} else {
			check(t, provisioner.Kill())
		}
		v, err := ledger.look(ctx)
		check(t, errors.Join(err, provisioner.Gone(ctx)))
		making, ending = making+len(v.making), ending+len(v.ending)
		if len(v.making)+len(v.ending) > 0 {
			hit++
		}
	}
	check(t, load.end())
	check(t, provisioner.Start(ctx, pod))
	alive := pair{provisioner, provisioner}.alive
	check(t, ledger.settle(ctx, alive))
	stop(ctx, t, provisioner)
	start(ctx, t, provisioner)
	ledger.endState(ctx, t)
	check(t, ledger.removeAll(ctx))
	check(t, ledger.settle(ctx, alive))
	ledger.endState(ctx, t)
	t.Logf("%d kills in %s: %d of them with something under way, %d claims to be bound and %d claims and volumes to go in all; %d claims made",
		kills, time.Since(began).Round(time.Second), hit, making, ending, len(ledger.claims))
	if hit < kills/2 {
		t.Errorf("only %d kills hit anything: the load is too small", hit)
	}
}
