package publish

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// csi-driver-nfs #927: the directory of a mounted volume is deleted on the server, and
// made again. What is mounted is stale: publish says so while there is nothing better,
// and mounts anew as soon as there is.
func testDirectoryDeleted(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	p, server := startPlugin(t), newServer(t)
	v := newVolume(t, server, "v")
	target := p.target("pod", "v")
	check(t, p.publish(ctx, v, target))
	before := mountID(t, target)
	check(t, os.Remove(server.Dir("v")))
	err := took(t, "publish on a stale mount", publishWithin, func() error { return p.publish(ctx, v, target) })
	notFinal(t, err)
	if mountID(t, target) != before {
		t.Error("the stale mount was taken away with nothing in its place")
	}
	if wrong, err := p.health(ctx, target); err != nil || len(wrong) == 0 {
		t.Errorf("health of a stale mount: %v, %v", wrong, err)
	}
	check(t, os.Mkdir(server.Dir("v"), 0o777))
	retried(t, "publish once the directory is there again", 2*time.Minute, func() error { return p.publish(ctx, v, target) })
	// By its number it could not be told from the stale one: the kernel gives free ones out again.
	if wrong, err := p.health(ctx, target); err != nil || len(wrong) > 0 {
		t.Errorf("health of what was mounted anew: %v, %v", wrong, err)
	}
	startWriter(t, target).finish(t, server.Dir("v"))
	check(t, p.unpublish(ctx, target))
}

// The export goes away under a mounted volume, while another one is to be mounted, and
// comes back: what was mounted is used on.
func testExportRemoved(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	p, server := startPlugin(t), newServer(t)
	v, w := newVolume(t, server, "v"), newVolume(t, server, "w")
	target, other := p.target("pod", "v"), p.target("pod", "w")
	check(t, p.publish(ctx, v, target))
	check(t, server.Unexport(ctx))
	before := mountID(t, target)
	// The server may go on to answer for what is mounted, for as long as it remembers.
	err := took(t, "publish on a mount without an export", publishWithin, func() error { return p.publish(ctx, v, target) })
	if err != nil {
		notFinal(t, err)
	}
	err = took(t, "publish without an export", publishWithin, func() error { return p.publish(ctx, w, other) })
	if err == nil {
		t.Error("it mounted something")
	}
	if mountID(t, target) != before {
		t.Error("what was mounted is gone")
	}
	check(t, took(t, "unpublish without an export", unpublishWithin, func() error { return p.unpublish(ctx, other) }))
	check(t, server.Export(ctx, "rw,no_root_squash"))
	retried(t, "publish again", 2*time.Minute, func() error { return p.publish(ctx, v, target) })
	retried(t, "publish of the other", 2*time.Minute, func() error { return p.publish(ctx, w, other) })
	startWriter(t, target).finish(t, server.Dir("v"))
	check(t, server.Unexport(ctx))
	for _, target := range []string{target, other} {
		check(t, took(t, "unpublish without an export", unpublishWithin, func() error { return p.unpublish(ctx, target) }))
	}
}

// azurefile-csi-driver #3211: publish is repeated on a live mount. csi-driver-nfs #112:
// the plugin was restarted meanwhile. The mount stays, and whoever writes goes on.
// csi-driver-nfs #601: the old pod of a volume goes while the new one uses it.
func testRepeated(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	p, server := startPlugin(t), newServer(t)
	v := newVolume(t, server, "v")
	target, old := p.target("pod", "v"), p.target("old", "v")
	check(t, p.publish(ctx, v, old))
	check(t, p.publish(ctx, v, target))
	writer, before := startWriter(t, target), mountID(t, target)
	for range 3 {
		check(t, p.publish(ctx, v, target))
		p.restart(t)
		check(t, p.publish(ctx, v, target))
	}
	for range 2 {
		check(t, p.unpublish(ctx, old))
	}
	writer.progresses(t)
	if mountID(t, target) != before {
		t.Error("the mount was replaced")
	}
	writer.finish(t, server.Dir("v"))
	check(t, p.unpublish(ctx, target))
	check(t, p.unpublish(ctx, target))
}

// A directory that was replaced by a link mounts something else: refused, and undone.
func testLink(t *testing.T) {
	t.Parallel()
	p, server := startPlugin(t), newServer(t)
	victim := newVolume(t, server, "victim")
	check(t, os.WriteFile(filepath.Join(server.Dir(victim.path), "data"), []byte("theirs"), 0o644))
	check(t, os.Symlink("victim", server.Dir("link")))
	target := p.target("pod", "link")
	err := p.publish(t.Context(), vol{server: server, path: "link", flags: flags42}, target)
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "victim") {
		t.Errorf("got %v", err)
	}
	if mounts := mountsBelow(t, p.dir); len(mounts) > 0 {
		t.Errorf("left mounted: %q", mounts)
	}
	check(t, p.unpublish(t.Context(), target))
}
