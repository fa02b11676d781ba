package share

import (
	"context"
	"fmt"
	"sync"
	"time"

	"sharevol.dev/sharevol/internal/share/operation"
)

// slots are for the operations on one server, on whichever of its shares and however
// these are mounted: when it is dead, they all are. Creations have their own, so that
// none waits behind the removal of big trees.
type slots struct{ creations, removals *lane }

func newSlots(concurrency int) *slots {
	return &slots{creations: newLane(concurrency), removals: newLane(concurrency)}
}

func (s *slots) of(kind operation.Kind) *lane {
	if kind.Has(operation.Creation) {
		return s.creations
	}
	return s.removals
}

// lane has one token for each operation of a kind that runs on a server. Whoever finds
// none waits only where the queue moves on quickly. A worker that waits for a slow
// server, or for one that may be dead, is missing where other servers' claims wait:
// these would come after all of the slow one's.
//
// On a quick server all workers may wait, however few have a slot. To send the others
// away costs more than it helps: at once they have sent the whole queue away, a thousand
// claims, which come back seconds later. (Of 1000 operations of 5 ms, with 32 workers
// and 8 slots, 640 a second ended where all might wait, and 140 where half of the
// workers might.) And it is not needed: such a queue gets shorter by 80 claims a second
// at least.
type lane struct {
	tokens chan struct{}

	mu    sync.Mutex
	moved time.Time     // when an operation last began or ended
	usual time.Duration // what one takes, the last ones on the average; 0: not known
}

const (
	// stillAfter is how long after the last operation began or ended a lane is not
	// quick any more, whatever it was: the server may be dead.
	stillAfter = time.Second
	// quickBelow is what an operation usually takes on a quick server.
	quickBelow = 100 * time.Millisecond
	// averageOf is how many operations the average is of, more or less: one that takes
	// a second among quick ones must not change the verdict, two may.
	averageOf = 16
	// longest is what one operation counts at most: a big tree's removal is one, too.
	longest = time.Second
	// forgottenAfter is after how long without operations nothing is known of the
	// server any more: those that were sent away came back long ago.
	forgottenAfter = 10 * time.Second
	// lookEvery is how often those who wait look whether it is still worth it.
	lookEvery = 100 * time.Millisecond
)

func newLane(concurrency int) *lane { return &lane{tokens: make(chan struct{}, concurrency)} }

// arrive is to be called before a token is asked for: a lane without operations is not still.
func (l *lane) arrive() {
	if len(l.tokens) > 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Since(l.moved) > forgottenAfter {
		l.usual = 0
	}
	l.moved = time.Now()
}

func (l *lane) move() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.moved = time.Now()
}

// took counts an operation that the server has answered.
func (l *lane) took(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.usual += (min(d, longest) - l.usual) / averageOf
}

func (l *lane) leave() {
	l.move()
	<-l.tokens
}

// quick reports whether a token will be free soon, as far as one can know. Of a server
// that is new it is taken to be so, until its first operations take long.
func (l *lane) quick() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.usual < quickBelow && time.Since(l.moved) < stillAfter
}

// enter takes a token. Where the queue moves on quickly it waits for one for a moment;
// where it does not, or on a share that is set aside, it returns at once, so that the
// callers are free for other servers.
func (s *access) enter(ctx context.Context, lane *lane) error {
	for deadline := time.Now().Add(s.options.Patience); ; {
		if err := s.refusal(); err != nil {
			return err
		}
		lane.arrive()
		select {
		case lane.tokens <- struct{}{}:
			lane.move()
			return nil
		default:
		}
		wait := min(time.Until(deadline), lookEvery)
		if wait <= 0 || !lane.quick() {
			return fmt.Errorf("%w: %s has %d operations under way", ErrBusy, s.ref.Share.Server, cap(lane.tokens))
		}
		select {
		case lane.tokens <- struct{}{}:
			lane.move()
			return nil
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
