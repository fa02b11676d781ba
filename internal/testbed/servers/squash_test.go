package servers

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	storagev1 "k8s.io/api/storage/v1"

	"sharevol.dev/sharevol/internal/testbed/guest"
)

const (
	nobody   = 65534 // whom a squashed root is
	stranger = 2000  // somebody whose files are on a volume
)

// squashed starts a server whose export belongs to the user that root is there.
func (w *world) squashed(t *testing.T, options string) *guest.NFSServer {
	t.Helper()
	server := w.server(t)
	check(t, os.Chown(server.Dir("/"), nobody, nobody))
	check(t, os.Chmod(server.Dir("/"), 0o755))
	check(t, server.Export(t.Context(), options))
	return server
}

// Where root is nobody, claims are served all the same, if nobody may write.
func (w *world) testSquashed(t *testing.T) {
	for class, options := range map[string]string{"root-squash": guest.RootSquash, "all-squash": guest.AllSquash} {
		server := w.squashed(t, options)
		w.class(t, class, server, "/", nil)
		volumes := w.made(t, class, class)
		dir := server.Dir(w.directory(t, volumes[0]))
		info, err := os.Stat(dir)
		check(t, err)
		if owner := info.Sys().(*syscall.Stat_t).Uid; owner != nobody || info.Mode().Perm() != 0o777 {
			t.Errorf("%s: the directory is of user %d, mode %v", class, owner, info.Mode())
		}
		fill(t, dir, 3)
		w.remove(t, class)
		check(t, w.allGone(t.Context(), soon, volumes...))
		if exists(t, dir) {
			t.Errorf("%s: the directory is left", class)
		}
		noRemains(t, server, "/")
	}
}

// Who is nobody can't give a directory to somebody: the claim is told which one and
// whom, nothing half-made is bound, and once root is root it is served.
func (w *world) testSquashedOwner(t *testing.T) {
	server := w.squashed(t, guest.RootSquash)
	w.class(t, "squash-owner", server, "/", func(class *storagev1.StorageClass) {
		class.Parameters["subDir"] = "of-${pvc.metadata.name}"
		class.Parameters["uid"], class.Parameters["gid"] = strconv.Itoa(stranger), strconv.Itoa(stranger)
	})
	w.make(t, "squash-owner", "squash-owner")
	w.warned(t, "squash-owner", "of-squash-owner", strconv.Itoa(stranger), "not permitted")
	if len(w.bound([]string{"squash-owner"})) > 0 {
		t.Error("the claim is bound")
	}
	check(t, server.Export(t.Context(), guest.ReadWrite))
	volumes, err := w.allBound(t.Context(), recovered, "squash-owner")
	check(t, err)
	info, err := os.Stat(server.Dir(w.directory(t, volumes[0])))
	check(t, err)
	if owner := info.Sys().(*syscall.Stat_t).Uid; owner != stranger {
		t.Errorf("the directory is of user %d", owner)
	}
	w.remove(t, "squash-owner")
	check(t, w.allGone(t.Context(), soon, volumes...))
}

// Who is nobody can't remove what is in somebody's folder: the volume is told which
// one and whose, it is out of the way in the trash, and goes once root is root.
func (w *world) testSquashedRemoval(t *testing.T) {
	server := w.squashed(t, guest.RootSquash)
	w.class(t, "squash-removal", server, "/", nil)
	volumes := w.made(t, "squash-removal", "squash-removal")
	dir := server.Dir(w.directory(t, volumes[0]))
	foreign := filepath.Join(dir, "theirs")
	check(t, os.Mkdir(foreign, 0o755))
	fill(t, foreign, 3)
	fill(t, dir, 3)
	check(t, os.Chown(foreign, stranger, stranger))
	w.remove(t, "squash-removal")
	text := w.warned(t, volumes[0], "theirs", strconv.Itoa(stranger), "ermission denied")
	if strings.Count(text, "theirs") > 3 {
		t.Errorf("too many words: %s", text)
	}
	time.Sleep(stays)
	if len(w.left(volumes)) == 0 {
		t.Error("the volume is gone, and its files are not")
	}
	trash := server.Dir(filepath.Join(".sharevol", "trash", volumes[0]))
	if exists(t, dir) || !exists(t, filepath.Join(trash, "theirs", "file-2")) || exists(t, filepath.Join(trash, "file-2")) {
		t.Errorf("what could not be removed should be in %s, and only that", trash)
	}
	check(t, server.Export(t.Context(), guest.ReadWrite))
	start := time.Now()
	check(t, w.allGone(t.Context(), recovered, volumes...))
	t.Logf("root is root again: gone after %s", ms(time.Since(start)))
	if exists(t, trash) {
		t.Errorf("%s is left", trash)
	}
	noRemains(t, server, "/")
}
