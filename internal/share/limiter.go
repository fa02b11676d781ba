package share

import (
	"context"
	"fmt"
	"sync"
	"time"

	"sharevol.dev/sharevol/internal/share/operation"
)

// serverLimiter limits the operations on one server, on whichever of its shares and however
// these are mounted: when it is dead, they all are. Creations have their own, so that
// none waits behind the removal of big trees.
type serverLimiter struct{ creations, removals *queue }

func newServerLimiter(concurrency int) *serverLimiter {
	return &serverLimiter{creations: newQueue(concurrency), removals: newQueue(concurrency)}
}

func (s *serverLimiter) of(kind operation.Kind) *queue {
	if kind.Has(operation.Creation) {
		return s.creations
	}
	return s.removals
}

// queue has one token for each operation of a kind that runs on a server. Whoever finds
// none waits only where the queue moves on quickly. A worker that waits for a slow
// server, or for one that may be dead, is missing where other servers' claims wait:
// these would come after all of the slow one's.
//
// On a fast server all workers may wait, however few have a slot. To send the others
// away costs more than it helps: at once they have sent the whole queue away, a thousand
// claims, which come back seconds later. (Of 1000 operations of 5 ms, with 32 workers
// and 8 slots, 640 a second ended where all might wait, and 140 where half of the
// workers might.) And it is not needed: such a queue gets shorter by 80 claims a second
// at least.
type queue struct {
	tokens chan struct{}

	mu       sync.Mutex
	lastMove time.Time     // when an operation last began or ended
	average  time.Duration // what one takes, the last ones on the average; 0: not known
}

const (
	// stalledAfter is how long after the last operation began or ended a queue is not
	// fast any more, whatever it was: the server may be dead.
	stalledAfter = time.Second
	// fastBelow is what an operation usually takes on a fast server.
	fastBelow = 100 * time.Millisecond
	// averageOf is how many operations the average is of, more or less: one that takes
	// a second among fast ones must not change the verdict, two may.
	averageOf = 16
	// longest is what one operation counts at most: a big tree's removal is one, too.
	longest = time.Second
	// forgottenAfter is after how long without operations nothing is known of the
	// server any more: those that were sent away came back long ago.
	forgottenAfter = 10 * time.Second
	// lookEvery is how often those who wait look whether it is still worth it.
	lookEvery = 100 * time.Millisecond
)

func newQueue(concurrency int) *queue { return &queue{tokens: make(chan struct{}, concurrency)} }

// noteArrival is to be called before a token is asked for: a queue without operations is not stalled.
func (q *queue) noteArrival() {
	if len(q.tokens) > 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if time.Since(q.lastMove) > forgottenAfter {
		q.average = 0
	}
	q.lastMove = time.Now()
}

func (q *queue) noteMove() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.lastMove = time.Now()
}

// observe counts an operation that the server has answered.
func (q *queue) observe(d time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.average += (min(d, longest) - q.average) / averageOf
}

func (q *queue) leave() {
	q.noteMove()
	<-q.tokens
}

// isFast reports whether a token will be free soon, as far as one can know. Of a server
// that is new it is taken to be so, until its first operations take long.
func (q *queue) isFast() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.average < fastBelow && time.Since(q.lastMove) < stalledAfter
}

// enter takes a token. Where the queue moves on quickly it waits for one for a moment;
// where it does not, or on a share that is unavailable, it returns at once, so that the
// callers are free for other servers.
func (s *shareConn) enter(ctx context.Context, queue *queue) error {
	for deadline := time.Now().Add(s.options.Patience); ; {
		if err := s.checkAvailable(); err != nil {
			return err
		}
		queue.noteArrival()
		select {
		case queue.tokens <- struct{}{}:
			queue.noteMove()
			return nil
		default:
		}
		wait := min(time.Until(deadline), lookEvery)
		if wait <= 0 || !queue.isFast() {
			return fmt.Errorf("%w: %s has %d operations under way", ErrBusy, s.ref.Share.Server, cap(queue.tokens))
		}
		select {
		case queue.tokens <- struct{}{}:
			queue.noteMove()
			return nil
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
