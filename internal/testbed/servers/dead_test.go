package servers

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	storagev1 "k8s.io/api/storage/v1"

	"sharevol.dev/sharevol/internal/testbed/guest"
)

const (
	// After the least number of rounds the figures count, unless they say that a dead
	// server is felt: then there are more, for figures scatter.
	leastRounds, mostRounds = 2, 5

	// Few, so that a dead server's claims and deletions are more than the workers, as
	// on a busy cluster.
	workers    = 8
	waiting    = 3 * workers // claims that the dead server has to leave waiting
	deletions  = workers + 2
	loadClaims = 16 // on the live server, in each measurement
	loadWidth  = 4  // of them at a time
	// deadFor is how long a server is dead in the first round: longer than a file
	// operation's deadline, so that helpers are killed and the share is unavailable.
	deadFor = 40 * time.Second
	// deadAgain is the same for the other rounds.
	deadAgain = 10 * time.Second

	// settle lets the API server work off what it was given just before, which the
	// others would feel too. The dead server's calls hang all the while.
	settle = 5 * time.Second

	// What a dead server may cost the others.
	leastThroughput = 0.9
	slower          = 1.5
	slack           = 250 * time.Millisecond
	yardstickPause  = 50 * time.Millisecond

	// What there may be at most: a helper for each of the three shares, never two; for
	// the dead server's two a mount(8) with its child; and a thread for each call.
	mostHelpers  = 3
	mostMounting = 4
	mostThreads  = 100
)

var fewWorkers = fmt.Sprintf("--worker-threads=%d", workers)

func (w *world) testStoppedServer(t *testing.T) {
	w.deadServer(t, "stopped", (*guest.NFSServer).Stop, (*guest.NFSServer).Start)
}

func (w *world) testLinkDown(t *testing.T) {
	w.deadServer(t, "cut", (*guest.NFSServer).LinkDown, (*guest.NFSServer).LinkUp)
}

// scene is a server that dies beside one that lives, and the provisioner of both.
type scene struct {
	*world
	prefix       string
	provisioner  *provisioner
	a, b         *guest.NFSServer
	kill, revive func(*guest.NFSServer, context.Context) error
}

// deadServer measures one server's claims alone and while another one is dead, in
// turns; the dead one's claims wait, and complete when it is back, in one round after
// the provisioner was stopped and started while it was dead.
func (w *world) deadServer(t *testing.T, prefix string, kill, revive func(*guest.NFSServer, context.Context) error) {
	s := &scene{world: w, prefix: prefix, a: w.server(t), b: w.server(t), kill: kill, revive: revive}
	s.provisioner = w.provisioner(t, fewWorkers)
	w.class(t, prefix+"-b", s.b, "/", nil)
	w.class(t, prefix+"-a", s.a, "/", nil)
	w.class(t, prefix+"-a3", s.a, s.a.PathV3("/"), func(class *storagev1.StorageClass) {
		class.MountOptions = []string{"nfsvers=3", "nolock", "hard"}
	})
	w.load(t, prefix+"-b", prefix+"-warm-b", 2*loadWidth, loadWidth)
	w.load(t, prefix+"-a", prefix+"-warm-a", 2*loadWidth, loadWidth)
	var alone, beside []figures
	var report, felt []string
	for i := 0; i < leastRounds || i < mostRounds && len(felt) > 0; i++ {
		class, dead := prefix+"-a", deadAgain
		switch i {
		case 0:
			dead = deadFor
		case 1:
			class = prefix + "-a3"
		}
		before := w.load(t, prefix+"-b", fmt.Sprintf("%s-alone-%d", prefix, i), loadClaims, loadWidth)
		t.Logf("%s: round %d, alone: %s", uptime(), i, before)
		during := s.round(t, i, class, dead)
		alone, beside = append(alone, before), append(beside, during)
		report, felt = compare(alone, beside)
	}
	t.Logf("medians of %d rounds:\n%s", len(alone), strings.Join(report, "\n"))
	if len(felt) > 0 {
		t.Errorf("the dead server is felt:\n%s", strings.Join(felt, "\n"))
	}
	s.provisioner.stop(t)
	nothingStuck(t)
}

// round lets the server die in the middle of its work, loads the other one, and
// sees that all is made up for when it is back.
func (s *scene) round(t *testing.T, i int, class string, dead time.Duration) figures {
	work := s.dies(t, fmt.Sprintf("%s-%d", s.prefix, i), class)
	died := time.Now()
	end := watchCensus(t.Context(), s.provisioner)
	time.Sleep(settle)
	during := s.load(t, s.prefix+"-b", fmt.Sprintf("%s-beside-%d", s.prefix, i), loadClaims, loadWidth)
	t.Logf("%s: round %d, beside %s: %s", uptime(), i, class, during)
	s.told(t, work, s.a.Address)
	if left := dead - time.Since(died); left > 0 {
		time.Sleep(left)
	}
	early, late := end(t)
	t.Logf("at most, first half:  %s", early)
	t.Logf("at most, second half: %s", late)
	for _, c := range []census{early, late} {
		if len(c.helpers) > mostHelpers || len(c.mounting) > mostMounting || c.threads > mostThreads {
			t.Errorf("that is too much: %s", c)
		}
	}
	if i == leastRounds-1 {
		s.provisioner.stop(t)
		s.provisioner = s.world.provisioner(t, fewWorkers)
	}
	check(t, s.revive(s.a, t.Context()))
	s.complete(t, work)
	return during
}

// work is what a server has to do when it dies.
type work struct {
	claims  []string // being made
	deleted []string // volumes being removed
}

// dies gives a's server work, lets it die in the middle of that, and gives it more.
func (s *scene) dies(t *testing.T, name, class string) work {
	t.Helper()
	var it work
	var old []string
	for i := range deletions {
		old = append(old, fmt.Sprintf("%s-old-%d", name, i))
	}
	it.deleted = s.made(t, class, old...)
	for _, volume := range it.deleted {
		fill(t, s.a.Dir(s.directory(t, volume)), 50)
	}
	for i := range waiting {
		it.claims = append(it.claims, fmt.Sprintf("%s-new-%d", name, i))
	}
	s.make(t, class, it.claims[:waiting/3]...)
	s.remove(t, old...)
	check(t, s.kill(s.a, t.Context()))
	s.make(t, class, it.claims[waiting/3:]...)
	return it
}

// told sees that the claims and deletions that wait say why, in words that name the
// server.
func (s *scene) told(t *testing.T, it work, server string) {
	t.Helper()
	bound := s.bound(it.claims)
	waits := slices.DeleteFunc(slices.Clone(it.claims), func(name string) bool { return bound[name] != "" })
	left := s.left(it.deleted)
	t.Logf("%s: %d of %d claims and %d of %d deletions wait", uptime(), len(waits), waiting, len(left), deletions)
	if len(waits) < waiting/2 {
		t.Errorf("the server died too late: only %d claims wait", len(waits))
	}
	texts := map[string]int{}
	err := s.await(t.Context(), soon, "warnings about all that waits", func() (bool, string) {
		clear(texts)
		for _, name := range append(slices.Clone(waits), left...) {
			named := slices.DeleteFunc(s.warnings(name), func(text string) bool { return !strings.Contains(text, server) })
			if len(named) == 0 {
				return false, fmt.Sprintf("%s: %q", name, s.warnings(name))
			}
			for _, text := range named {
				texts[text]++
			}
		}
		return true, ""
	})
	if err != nil {
		t.Error(err)
	}
	shown := 0
	for text, times := range texts {
		if shown++; shown > 6 {
			t.Logf("  and %d other texts", len(texts)-6)
			break
		}
		t.Logf("  %d times: %s", times, text)
	}
}

// complete waits until the work is done, and takes it all away again.
func (s *scene) complete(t *testing.T, it work) {
	t.Helper()
	back := time.Now()
	volumes, err := s.allBound(t.Context(), recovered, it.claims...)
	check(t, err)
	bound := time.Since(back)
	check(t, s.allGone(t.Context(), recovered, it.deleted...))
	t.Logf("%s: back: all claims bound after %s, all deletions done after %s", uptime(), ms(bound), ms(time.Since(back)))
	for _, volume := range volumes {
		if dir := s.a.Dir(s.directory(t, volume)); !exists(t, dir) {
			t.Errorf("%s has no directory", volume)
		}
	}
	s.remove(t, it.claims...)
	check(t, s.allGone(t.Context(), recovered, volumes...))
}
