package servers

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/testbed/guest"
)

// A full file system is said to be full, whatever sharevol was just about to make
// there, and once there is room all claims are served. Deleting needs no room.
func (w *world) testFullFileSystem(t *testing.T) {
	const steps = 6 // .sharevol, what is in it, and the volume directory
	server := w.server(t)
	var claims []string
	for i := range steps {
		check(t, os.Mkdir(server.Dir(fmt.Sprintf("/full-%d", i)), 0o777))
	}
	w.class(t, "full", server, "/", nil)
	before := w.made(t, "full", "full-before")
	fill(t, server.Dir(w.directory(t, before[0])), 3)
	for i := range steps { // each share gets one step further
		class := fmt.Sprintf("full-%d", i)
		claims = append(claims, class)
		w.class(t, class, server, "/"+class, nil)
		limitInodes(t, server, i)
		w.make(t, class, class)
		err := w.await(t.Context(), soon, class+" to be bound or refused", func() (bool, string) {
			return len(w.warnings(class)) > 0 || len(w.bound([]string{class})) > 0, ""
		})
		check(t, err)
	}
	limitInodes(t, server, 0)
	w.warned(t, "full-0", "no space left on device")
	w.remove(t, "full-before")
	if err := w.allGone(t.Context(), soon, before...); err != nil {
		t.Errorf("deleting on a full file system: %v", err)
	}
	check(t, server.Limit(t.Context(), "nr_inodes=0"))
	start := time.Now()
	volumes, err := w.allBound(t.Context(), recovered, claims...)
	check(t, err)
	t.Logf("with room again, all claims were bound after %s", ms(time.Since(start)))
	for i, volume := range volumes {
		if dir := server.Dir(filepath.Join(claims[i], w.directory(t, volume))); !exists(t, dir) {
			t.Errorf("%s is bound and has no directory %s", claims[i], dir)
		}
	}
	w.remove(t, claims...)
	check(t, w.allGone(t.Context(), soon, volumes...))
	for _, share := range append(claims, "/") {
		noRemains(t, server, share)
	}
}

// limitInodes leaves room for n more files and directories.
func limitInodes(t *testing.T, server *guest.NFSServer, n int) {
	t.Helper()
	var fs unix.Statfs_t
	check(t, unix.Statfs(server.Dir("/"), &fs))
	check(t, server.Limit(t.Context(), fmt.Sprintf("nr_inodes=%d", fs.Files-fs.Ffree+uint64(n))))
}

// noRemains sees that no volume's record and no trash is left on a share.
func noRemains(t *testing.T, server *guest.NFSServer, share string) {
	t.Helper()
	for _, kind := range []string{"owners", "trash"} {
		entries, err := os.ReadDir(server.Dir(filepath.Join(share, ".sharevol", kind)))
		if len(entries) > 0 || err != nil && !os.IsNotExist(err) {
			t.Errorf("%s of share %s: %v, %v", kind, share, entries, err)
		}
	}
}

// An export that is read-only says so, and serves again when it is writable.
func (w *world) testReadOnlyExport(t *testing.T) {
	server := w.server(t)
	w.class(t, "read-only", server, "/", nil)
	old := w.made(t, "read-only", "read-only-old")
	check(t, server.Export(t.Context(), guest.ReadOnly))
	w.make(t, "read-only", "read-only-new")
	w.remove(t, "read-only-old")
	for _, name := range []string{"read-only-new", old[0]} {
		w.warned(t, name, "read-only file system")
	}
	check(t, server.Export(t.Context(), guest.ReadWrite))
	start := time.Now()
	volumes, err := w.allBound(t.Context(), recovered, "read-only-new")
	check(t, err)
	check(t, w.allGone(t.Context(), recovered, old...))
	t.Logf("writable again: all done after %s", ms(time.Since(start)))
	w.remove(t, "read-only-new")
	check(t, w.allGone(t.Context(), soon, volumes...))
	noRemains(t, server, "/")
}
