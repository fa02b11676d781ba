package replicas

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// side is one of the two clusters, with one provisioner each.
type side struct {
	*place
	other *side
}

// Two clusters with one share and classes that give claims of one name one directory. Of each pair of claims
// made at the same instant one is served, the other refused with an event. Whichever of them is deleted, the
// other's data stays; and when it is the served one, the other is served then.
func TestTwoClustersOneExport(t *testing.T) {
	const pairs = 40
	ctx, lab := theLab(t, 6*time.Minute)
	second, err := lab.newCluster("second")
	check(t, err)
	t.Cleanup(func() { // after that of its provisioner
		if err := second.Stop(); err != nil {
			t.Error(err)
		}
	})
	if lab.cluster.UID() == "" || lab.cluster.UID() == second.UID() {
		t.Fatalf("two clusters with the UID %q", second.UID())
	}
	here := &side{place: newPlace(ctx, t, lab, lab.cluster, "export", "export", byName)}
	there := &side{place: newPlace(ctx, t, lab, second, "export", "export", byName)}
	here.other, there.other = there, here
	a := here.provisioner(t, "here", lab.program)
	b := there.provisioner(t, "there", lab.program)
	start(ctx, t, a, b)

	names := numbered("pair", pairs)
	served, err := makePairs(ctx, names, here, there)
	check(t, err)
	// Neither may do harm with what it remembers, nor with what it finds when it starts.
	restart(ctx, t, a)
	restart(ctx, t, b)
	check(t, atOnce(ctx, names, func(_ context.Context, name string) error { return served[name].data(name) }))

	// Of half the pairs the one that was refused is deleted first, of the others the one that was served.
	var refusedFirst, servedFirst []string
	winsHere := 0
	for i, name := range names {
		if served[name] == here {
			winsHere++
		}
		if i%2 == 0 {
			refusedFirst = append(refusedFirst, name)
		} else {
			servedFirst = append(servedFirst, name)
		}
	}
	check(t, atOnce(ctx, refusedFirst, func(ctx context.Context, name string) error { return served[name].other.removeClaim(ctx, name) }))
	began := time.Now()
	check(t, atOnce(ctx, servedFirst, func(ctx context.Context, name string) error { return served[name].handOver(ctx, name) }))
	t.Logf("%d pairs: %d served in the first cluster, %d in the second; %d handed over within %s",
		pairs, winsHere, pairs-winsHere, len(servedFirst), time.Since(began).Round(100*time.Millisecond))
	for _, name := range servedFirst {
		served[name] = served[name].other
	}
	restart(ctx, t, a)
	restart(ctx, t, b)
	time.Sleep(2 * time.Second) // for what they might do wrong after their start
	check(t, atOnce(ctx, names, func(_ context.Context, name string) error { return served[name].data(name) }))
	check(t, atOnce(ctx, names, func(ctx context.Context, name string) error { return served[name].finish(ctx, name) }))
	empty(t, here.share)
}

// makePairs makes a claim of each name in both clusters at the same instant, and returns whose was served, once
// it has its data and the other was refused.
func makePairs(ctx context.Context, names []string, here, there *side) (map[string]*side, error) {
	var mu sync.Mutex
	served := map[string]*side{}
	err := atOnce(ctx, names, func(ctx context.Context, name string) error {
		barrier := make(chan struct{})
		made := make(chan error, 2)
		for _, s := range []*side{here, there} {
			go func() {
				<-barrier
				time.Sleep(rand.N(20 * time.Millisecond)) // neither cluster is always the faster one
				_, err := s.createClaim(ctx, name, byName)
				made <- err
			}()
		}
		close(barrier)
		if err := errors.Join(<-made, <-made); err != nil {
			return err
		}
		winner, err := oneServed(ctx, name, here, there)
		if err != nil {
			return err
		}
		mu.Lock()
		served[name] = winner
		mu.Unlock()
		if err := winner.write(name); err != nil {
			return err
		}
		return winner.other.refused(ctx, name, byName.path("", name, ""))
	})
	return served, err
}

func oneServed(ctx context.Context, name string, here, there *side) (winner *side, err error) {
	err = waitFor(ctx, "one of the claims "+name, servedWithin, func(ctx context.Context) (bool, string, error) {
		winner = nil
		for _, s := range []*side{here, there} {
			phase, err := s.phase(ctx, name)
			if err != nil {
				return false, "", err
			}
			if phase == corev1.ClaimBound && winner != nil {
				return false, "", fmt.Errorf("both claims %s are served", name)
			} else if phase == corev1.ClaimBound {
				winner = s
			}
		}
		return winner != nil, "neither is bound", nil
	})
	return winner, err
}

func (s *side) dir(name string) string { return filepath.Join(s.share, byName.path("", name, "")) }

func (s *side) text(name string) string { return name + " of " + s.cluster.UID() }

// write puts a claim's data into its new, empty directory.
func (s *side) write(name string) error {
	found, err := os.ReadDir(s.dir(name))
	if err != nil || len(found) > 0 {
		return fmt.Errorf("the new directory of %s: %v, %w", name, found, err)
	}
	return os.WriteFile(filepath.Join(s.dir(name), marker), []byte(s.text(name)), 0o644)
}

// data checks that a claim has the data that was written for it.
func (s *side) data(name string) error {
	text, err := os.ReadFile(filepath.Join(s.dir(name), marker))
	if err != nil || string(text) != s.text(name) {
		return fmt.Errorf("the data of %s is %q, not %q: %v", name, text, s.text(name), err)
	}
	return nil
}

// handOver deletes a served claim; the other cluster's gets the directory, as a new one.
func (s *side) handOver(ctx context.Context, name string) error {
	if err := s.data(name); err != nil {
		return err
	}
	volume, err := s.volume(ctx, name)
	if err != nil {
		return err
	}
	if err := s.removeClaim(ctx, name); err != nil {
		return err
	}
	if _, err := s.other.volume(ctx, name); err != nil {
		return fmt.Errorf("after the other's deletion: %w", err)
	}
	if err := s.other.write(name); err != nil {
		return err
	}
	return s.volumeGone(ctx, volume)
}

// finish deletes the claim that is left of a pair.
func (s *side) finish(ctx context.Context, name string) error {
	volume, err := s.volume(ctx, name)
	if err != nil {
		return err
	}
	return errors.Join(s.removeClaim(ctx, name), s.volumeGone(ctx, volume))
}
