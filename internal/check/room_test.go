package check

import (
	"os"
	"path/filepath"
	"testing"

	"sharevol.dev/sharevol/internal/mount"
	"sharevol.dev/sharevol/internal/mount/fakemount"
)

func TestRoomsOfChecksThatWereKilledAreSwept(t *testing.T) {
	base, mounter := t.TempDir(), &fakemount.Mounter{}
	live, err := newRoom(ctx, base, mounter)
	must(t, err)
	mounted := map[string]string{} // by whose
	for whose, room := range map[string]string{"live": live.path, "killed": filepath.Join(base, "check-killed"), "provisioner": filepath.Join(base, "0123456789abcdef")} {
		target := filepath.Join(room, "share")
		must(t, os.MkdirAll(target, 0o700))
		mounter.Put(target, mount.Layer{Source: "nfs:/srv", FSType: "nfs4"})
		mounted[whose] = target
	}
	must(t, os.Symlink(filepath.Dir(mounted["provisioner"]), filepath.Join(base, "check-link")))

	second, err := newRoom(ctx, base, mounter)
	must(t, err)
	for whose, target := range mounted {
		layers, _ := mounter.Layers(target)
		_, err := os.Lstat(target)
		if unmounted, removed, want := len(layers) == 0, os.IsNotExist(err), whose == "killed"; unmounted != want || removed != want {
			t.Errorf("%s: %v, %v", whose, layers, err)
		}
	}
	if _, err := os.Lstat(filepath.Join(base, "check-killed")); !os.IsNotExist(err) {
		t.Error("the room is left")
	}
	must(t, second.leave())
	must(t, os.Remove(mounted["live"]))
	must(t, live.leave())
	if _, err := os.Lstat(base); err != nil {
		t.Error("a folder that it has not made is gone")
	}
}

func TestRoomLeavesNothing(t *testing.T) {
	base := filepath.Join(t.TempDir(), "run")
	one, err := newRoom(ctx, base, &fakemount.Mounter{})
	must(t, err)
	two, err := newRoom(ctx, base, &fakemount.Mounter{})
	must(t, err)
	must(t, one.leave())
	if _, err := os.Lstat(two.path); err != nil {
		t.Error(err)
	}
	must(t, two.leave())
	if _, err := newRoom(ctx, filepath.Join(base, "a", "b"), nil); err == nil {
		t.Error("a room nowhere")
	}
}
