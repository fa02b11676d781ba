package servers

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"sharevol.dev/sharevol/internal/testbed/guest"
)

// stays is how long a volume that must stay is looked at, through several retries.
const stays = 12 * time.Second

// A share whose handles are stale is mounted anew (nfs-subdir #214). With another
// file system in its place nothing is made and nothing removed there, and no
// deletion reads as success because the directory is missing.
func (w *world) testStaleHandles(t *testing.T) {
	server := w.server(t)
	check(t, os.Mkdir(server.Dir("/data"), 0o777))
	w.class(t, "stale-root", server, "/", nil) // its root's handle stays good whatever is exported
	w.class(t, "stale-dir", server, "/data", nil)
	claims := map[string]string{"stale-root": "/", "stale-dir": "/data"}
	volumes, dirs := map[string][]string{}, map[string][]string{}
	for class, share := range claims {
		volumes[class] = w.made(t, class, class+"-0", class+"-1", class+"-2")
		for _, volume := range volumes[class] {
			dir := filepath.Join(share, w.directory(t, volume))
			fill(t, server.Dir(dir), 3)
			dirs[class] = append(dirs[class], dir)
		}
	}

	check(t, server.Unexport(t.Context()))
	for class := range claims {
		w.remove(t, class+"-0")
		w.make(t, class, class+"-3")
		w.warned(t, class+"-3")
		w.warned(t, volumes[class][0])
	}
	check(t, server.Export(t.Context(), guest.ReadWrite))
	start := time.Now()
	for class := range claims {
		check(t, w.allGone(t.Context(), recovered, volumes[class][0]))
		made, err := w.allBound(t.Context(), recovered, class+"-3")
		check(t, err)
		volumes[class] = append(volumes[class], made...)
	}
	t.Logf("exported again: all done after %s", ms(time.Since(start)))
	w.otherFileSystem(t, server, claims, volumes, dirs)
}

// otherFileSystem deletes and makes claims while another file system is exported,
// on which the name of one volume's directory is somebody else's.
func (w *world) otherFileSystem(t *testing.T, server *guest.NFSServer, claims map[string]string, volumes, dirs map[string][]string) {
	check(t, server.Show(t.Context(), "other"))
	var foreign []string
	for class := range claims {
		foreign = append(foreign, filepath.Join(dirs[class][2], "precious"))
		file := server.Dir(foreign[len(foreign)-1])
		check(t, os.MkdirAll(filepath.Dir(file), 0o777))
		check(t, os.WriteFile(file, []byte("not sharevol's"), 0o644))
	}
	for class := range claims {
		w.remove(t, class+"-1", class+"-2")
		w.make(t, class, class+"-4")
	}
	for class := range claims {
		for _, volume := range volumes[class][1:3] {
			w.warned(t, volume, "another file system")
		}
		w.warned(t, class+"-4", "another file system")
	}
	time.Sleep(stays)
	for class := range claims {
		if left := w.left(volumes[class][1:3]); len(left) != 2 {
			t.Errorf("%s: with another file system in its place, of 2 volumes being deleted only %d are left", class, len(left))
		}
		if bound := w.bound([]string{class + "-4"}); len(bound) > 0 {
			t.Errorf("%s: a claim was served on the other file system: %v", class, bound)
		}
	}
	for _, file := range foreign {
		if !exists(t, server.Dir(file)) {
			t.Errorf("%s was removed from the other file system", file)
		}
	}

	check(t, server.Show(t.Context(), guest.FirstFS))
	start := time.Now()
	for class := range claims {
		check(t, w.allGone(t.Context(), recovered, volumes[class][1:3]...))
		made, err := w.allBound(t.Context(), recovered, class+"-4")
		check(t, err)
		for _, dir := range dirs[class] {
			if exists(t, server.Dir(dir)) {
				t.Errorf("%s: %s is left, and its volume gone", class, dir)
			}
		}
		w.remove(t, class+"-3", class+"-4")
		check(t, w.allGone(t.Context(), recovered, append(made, volumes[class][3])...))
	}
	t.Logf("the right file system again: all done after %s", ms(time.Since(start)))
}
