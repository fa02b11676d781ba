package servers

import (
	"context"
	"fmt"
	"os/exec"
	"testing"
	"time"

	storagev1 "k8s.io/api/storage/v1"

	"sharevol.dev/sharevol/internal/testbed/guest"
)

const (
	latency = 500 * time.Millisecond
	// slowWithin is for a few claims on a server that takes its time: a mount is some
	// 20 requests one after the other, a directory a dozen.
	slowWithin = 3 * time.Minute
	// mountDeadline is what mount(8) may take before it is killed, and its end.
	mountDeadline = 60*time.Second + 15*time.Second
	// cutFor is long enough for a share to become unavailable, tried on its old mount, and
	// mounted anew several times.
	cutFor = 110 * time.Second
	// mountsAtOnce is a mount that nothing is in the way of.
	mountsAtOnce = 5 * time.Second
)

// A server with a long way to it serves, only slower.
func (w *world) testSlowServer(t *testing.T) {
	server := w.server(t)
	check(t, server.Delay(t.Context(), latency))
	w.class(t, "slow", server, "/", nil)
	var claims []string
	for i := range 8 {
		claims = append(claims, fmt.Sprintf("slow-%d", i))
	}
	start, calls := time.Now(), rpcCalls(t, server)
	w.make(t, "slow", claims...)
	volumes, err := w.allBound(t.Context(), slowWithin, claims...)
	check(t, err)
	t.Logf("%d claims were bound after %s and %d calls of the server", len(claims), ms(time.Since(start)), rpcCalls(t, server)-calls)
	for _, volume := range volumes {
		fill(t, server.Dir(w.directory(t, volume)), 5)
	}
	start, calls = time.Now(), rpcCalls(t, server)
	w.remove(t, claims...)
	check(t, w.allGone(t.Context(), slowWithin, volumes...))
	t.Logf("%d volumes of 5 files each were gone after %s and %d calls", len(claims), ms(time.Since(start)), rpcCalls(t, server)-calls)
	for _, claim := range claims {
		if all := w.warnings(claim); len(all) > 0 {
			t.Errorf("warnings on %s: %q", claim, all)
		}
	}
}

// csi-driver-nfs #1271: a mount that timed out and was left behind poisons later
// mounts of that server.
func (w *world) testHungMount(t *testing.T) {
	server := w.server(t)
	check(t, server.LinkDown(t.Context()))
	w.class(t, "hung", server, "/", nil)
	w.make(t, "hung", "hung-0", "hung-1", "hung-2")
	first := w.mountsOf(t, server, 10*time.Second, func(mounts int) bool { return mounts > 0 })
	if first == 0 {
		t.Error("no mount has begun")
	}
	if left := w.mountsOf(t, server, mountDeadline, func(mounts int) bool { return mounts == 0 }); left > 0 {
		t.Errorf("%d mounts are still there after %s", left, mountDeadline)
	}
	for _, claim := range []string{"hung-0", "hung-1", "hung-2"} {
		w.warned(t, claim, server.Address)
	}
	check(t, server.LinkUp(t.Context()))
	dir := t.TempDir()
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	out, err := exec.CommandContext(ctx, "mount", "-t", "nfs", "-o", "nfsvers=4.2", server.Address+":/", dir).CombinedOutput()
	if took := time.Since(start); err != nil || took > mountsAtOnce {
		t.Errorf("a mount once the link is up: %v after %s: %s", err, took, out)
	} else {
		t.Logf("a mount once the link is up took %s", ms(took))
		out, err = exec.CommandContext(ctx, "umount", dir).CombinedOutput()
		if err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	}
	volumes, err := w.allBound(t.Context(), recovered, "hung-0", "hung-1", "hung-2")
	check(t, err)
	t.Logf("all claims bound %s after the link was up", ms(time.Since(start)))
	w.remove(t, "hung-0", "hung-1", "hung-2")
	check(t, w.allGone(t.Context(), soon, volumes...))
}

// A server that stays cut off for long is probed again and again, on each of its two
// shares: that never adds up to more than one mount(8) for each.
func (w *world) testCutForLong(t *testing.T) {
	server := w.server(t)
	w.class(t, "long", server, "/", nil)
	w.class(t, "long3", server, server.PathV3("/"), func(class *storagev1.StorageClass) {
		class.MountOptions = []string{"nfsvers=3", "nolock", "hard"}
	})
	old := append(w.made(t, "long", "long-old"), w.made(t, "long3", "long3-old")...)
	check(t, server.LinkDown(t.Context()))
	w.make(t, "long", "long-0", "long-1")
	w.make(t, "long3", "long3-0", "long3-1")
	w.remove(t, "long-old", "long3-old")
	var most []string
	mounting := 0
	for start := time.Now(); time.Since(start) < cutFor; time.Sleep(time.Second) {
		now, err := guest.Commands("mount", server.Address+":/")
		check(t, err)
		if mounting += len(now); len(now) > len(most) {
			most = now
			t.Logf("%s: %q", uptime(), now)
		}
	}
	if len(most) > 2 { // one for each share
		t.Errorf("%d processes mount at the same time: %q", len(most), most)
	}
	if mounting == 0 {
		t.Error("the server was never tried again")
	}
	check(t, server.LinkUp(t.Context()))
	start := time.Now()
	volumes, err := w.allBound(t.Context(), recovered, "long-0", "long-1", "long3-0", "long3-1")
	check(t, err)
	check(t, w.allGone(t.Context(), recovered, old...))
	t.Logf("all was done %s after the link was up", ms(time.Since(start)))
	w.remove(t, "long-0", "long-1", "long3-0", "long3-1")
	check(t, w.allGone(t.Context(), soon, volumes...))
}

// mountsOf waits until the number of mount.nfs processes for a server is as wanted,
// and returns it.
func (w *world) mountsOf(t *testing.T, server *guest.NFSServer, within time.Duration, wanted func(int) bool) int {
	t.Helper()
	start := time.Now()
	for {
		found, err := guest.Commands("mount.nfs", server.Address+":/")
		check(t, err)
		if wanted(len(found)) {
			t.Logf("%s: after %s: %d mounts %q", uptime(), ms(time.Since(start)), len(found), found)
			return len(found)
		}
		if time.Since(start) > within {
			return len(found)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func rpcCalls(t *testing.T, server *guest.NFSServer) int {
	t.Helper()
	calls, err := server.Calls()
	check(t, err)
	return calls
}
