package provision

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sharevol.dev/sharevol/internal/share"
	"sharevol.dev/sharevol/internal/share/sharetest"
)

// oneDead are shares of which those of one server do not answer when their records
// are asked for. It keeps when that was.
type oneDead struct {
	*sharetest.Shares
	server string
	began  time.Time

	mu    sync.Mutex
	asked map[string][]time.Duration // by server
}

func (o *oneDead) Do(ctx context.Context, ref share.Ref, name string, arguments, result any) error {
	o.mu.Lock()
	o.asked[ref.Share.Server] = append(o.asked[ref.Share.Server], time.Since(o.began))
	o.mu.Unlock()
	if ref.Share.Server == o.server {
		return share.ErrNoAnswer
	}
	return o.Shares.Do(ctx, ref, name, arguments, result)
}

func (o *oneDead) at(server string) []time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.asked[server])
}

// A share that can't be looked through is tried again ever more rarely, and keeps no
// record on another one from being looked at.
func TestDeadShareAndTheRecordsOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alive, dead := requestFor("1").Class, requestFor("2").Class
		dead.Name, dead.Parameters["server"] = "dead", "other.example.com"
		f := newFixture(t, alive, dead)
		shares := &oneDead{Shares: f.shares, server: "other.example.com", began: time.Now(), asked: map[string][]time.Duration{}}
		f.options.Shares = shares
		running, stop := context.WithCancel(ctx)
		ended := make(chan struct{})
		go func() {
			f.DropRecords(running)
			close(ended)
		}()
		expect := func(server string, want ...time.Duration) {
			t.Helper()
			synctest.Wait()
			got := shares.at(server)
			for i := range got {
				got[i] = got[i].Truncate(time.Second) // the caches take a moment
			}
			if !slices.Equal(got, want) {
				t.Errorf("asked %s at %v, want %v", server, got, want)
			}
		}
		f.conflicts <- struct{}{} // too early: the first look is just over
		time.Sleep(9*time.Minute + 30*time.Second)
		expect("other.example.com", 0, time.Minute, 3*time.Minute, 7*time.Minute)
		expect("nfs.example.com", 0)
		time.Sleep(time.Minute)
		expect("nfs.example.com", 0, sweepEvery)
		expect("other.example.com", 0, time.Minute, 3*time.Minute, 7*time.Minute, sweepEvery)
		time.Sleep(time.Hour)
		if n := len(shares.at("other.example.com")); n < 10 || n > 14 {
			t.Errorf("asked the dead one %d times in some 70 minutes", n)
		}
		expect("nfs.example.com", 0, sweepEvery)
		stop()
		<-ended
	})
}

// However many volumes and classes name a share, it is looked through once.
func TestRefsNameEachShareOnce(t *testing.T) {
	shares := sharetest.New(t)
	one, two := provisioned(t, shares, "1"), provisioned(t, shares, "2")
	class := requestFor("3").Class
	f := fixtureWith(t, shares, one, two, class)
	if refs := f.refs(ctx); len(refs) != 1 || fmt.Sprint(refs[0].Share) != "nfs.example.com:/srv/volumes" {
		t.Errorf("got %v", refs)
	}
}
