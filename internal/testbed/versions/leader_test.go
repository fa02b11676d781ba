package versions

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// takeoverPromise is how soon another replica leads when the one that did is dead.
	takeoverPromise = 20 * time.Second
	// hangsFor is how long a provisioner must not get ready to be called hanging; others need a second or two.
	hangsFor = 15 * time.Second
)

// One line of the provisioner's source, and what it would be if client-go did as it does by default.
const (
	streamingOff = "gates.Set(clientfeatures.WatchListClient, false)"
	streamingOn  = "gates.Set(clientfeatures.WatchListClient, true)"
)

var streamingSource = filepath.Join("internal", "kubeclient", "kubeclient.go")

// lease is what the API server has of the provisioners' Lease.
type lease struct {
	holder      string
	transitions int32
}

func (c *cluster) lease(ctx context.Context) (lease, error) {
	object, err := c.client.CoordinationV1().Leases(c.namespace).Get(ctx, driver, metav1.GetOptions{})
	if err != nil {
		return lease{}, err
	}
	var now lease
	if object.Spec.HolderIdentity != nil {
		now.holder = *object.Spec.HolderIdentity
	}
	if object.Spec.LeaseTransitions != nil {
		now.transitions = *object.Spec.LeaseTransitions
	}
	return now, nil
}

// testTakeover kills the leader, and makes and deletes claims while there is none.
func testTakeover(ctx context.Context, t *testing.T, c *cluster) {
	before, err := c.lease(ctx)
	check(t, err)
	volume, dir := c.bound(ctx, t, "first")
	check(t, c.leader.Kill())
	hurt := time.Now()
	c.running = c.running[1:]
	c.claim(ctx, t, "orphaned", "plain")
	var now lease
	waitFor(ctx, t, "another leader", 2*takeoverPromise, func(ctx context.Context) (bool, string, error) {
		if now, err = c.lease(ctx); err != nil {
			return false, err.Error(), c.alive()
		}
		return now.holder != "" && now.holder != before.holder, fmt.Sprintf("%+v", now), c.alive()
	})
	took := time.Since(hurt)
	t.Logf("another led after %s", took.Round(100*time.Millisecond))
	if took > takeoverPromise || now.transitions != before.transitions+1 {
		t.Errorf("the takeover took %s, not %s at most; the Lease was %+v and is %+v", took, takeoverPromise, before, now)
	}
	orphan, orphanDir := c.bound(ctx, t, "orphaned")
	c.remove(ctx, t, "orphaned", orphan)
	data(t, orphanDir, "orphaned", false)
	c.remove(ctx, t, "first", volume)
	data(t, dir, "first", false)
	check(t, c.leader.Gone(ctx))
}

// testStreamingLists looks at a provisioner that lets client-go stream its lists. An API server before 1.19 takes that for a
// watch that has nothing to say, and it waits for ever where ours has long been at work. Later ones refuse, and it
// lists as before, or know it.
func testStreamingLists(ctx context.Context, t *testing.T, c *cluster) {
	if !c.release.Before(19) {
		check(t, c.streaming.Ready(ctx))
		c.cell = "yes; neither"
		return
	}
	time.Sleep(time.Until(c.streamsSince.Add(hangsFor)))
	status, body, err := c.streaming.Get(ctx, "/readyz")
	check(t, err)
	if status == http.StatusOK {
		t.Errorf("a provisioner with %s got ready: this test shows nothing any more", streamingOn)
	}
	c.cell = "yes; there it hangs"
	t.Logf("with streaming lists, not ready after %s: %d %s", time.Since(c.streamsSince).Round(time.Second), status, body)
}
