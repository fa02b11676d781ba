package mount

import (
	"context"
	"maps"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestUnmountDetachesWhatIsBusyAndNeverForces(t *testing.T) {
	f := newFixture(t, "", `case "$*" in *-l*) `+umountsTheLast+`;; *) echo busy; exit 32;; esac`)
	write(t, f.info, entry(f.target, "nfs:/a")+entry(f.target, "nfs:/b"))
	if err := f.Unmount(context.Background(), f.target); err != nil {
		t.Fatal(err)
	}
	if calls := f.calls(t); strings.Count(calls, "-l ") != 2 || strings.Contains(calls, "-f") {
		t.Errorf("calls:\n%s", calls)
	}
}

func TestUnmountSaysWhatIsStillMounted(t *testing.T) {
	f := newFixture(t, "", "echo busy >&2; exit 32")
	write(t, f.info, entry(f.target, "nfs:/a"))
	if err := f.Unmount(context.Background(), f.target); err == nil || !strings.Contains(err.Error(), "busy") {
		t.Errorf("got %v", err)
	}
	if err := f.Unmount(context.Background(), filepath.Join(f.dir, "no", "such")); err != nil {
		t.Errorf("a missing target: %v", err)
	}
}

func TestUnmountsAreCountedByKind(t *testing.T) {
	cases := map[string]struct {
		umount string
		layers int
		want   map[Unmounted]int
	}{
		"plain":    {umountsTheLast, 2, map[Unmounted]int{Plain: 2}},
		"detached": {`case "$*" in *-l*) ` + umountsTheLast + `;; *) exit 32;; esac`, 2, map[Unmounted]int{Detached: 2}},
		"failed":   {"exit 32", 1, map[Unmounted]int{Failed: 1}},
		// It took effect, and only then did it not end.
		"plain, late":        {umountsTheLast + "; exec sleep 600", 1, map[Unmounted]int{Plain: 1}},
		"nothing is mounted": {"exit 32", 0, map[Unmounted]int{}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, "", c.umount)
			got := map[Unmounted]int{}
			f.Mounter = New(Options{MountInfo: f.info, UnmountTimeout: time.Second, Unmounted: func(kind Unmounted) { got[kind]++ }})
			table := ""
			for range c.layers {
				table += entry(f.target, "nfs:/a")
			}
			write(t, f.info, table)
			if err := f.Unmount(context.Background(), f.target); (err != nil) != (name == "failed") {
				t.Error(err)
			}
			if !maps.Equal(got, c.want) {
				t.Errorf("counted %v, want %v", got, c.want)
			}
		})
	}
}

// The undoing of a failed mount ends in time, too, however much there is to undo.
func TestMountEndsSoonAfterItsContext(t *testing.T) {
	layer := mountsWhatIsAsked + "; "
	f := newFixture(t, strings.Repeat(layer, 5)+"exec sleep 600", `case "$*" in *-l*) sleep 0.5; `+umountsTheLast+`;; *) exec sleep 600;; esac`)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	started := time.Now()
	if err := f.Mount(ctx, nfs("nfs:/srv"), f.target); err == nil {
		t.Error("no error")
	}
	if took := time.Since(started); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestMounts(t *testing.T) {
	f := newFixture(t, "", "")
	other := filepath.Join(f.dir, "other")
	write(t, f.info, "39 30 0:49 / /run rw - tmpfs tmpfs rw\n"+entry(f.target, "nfs:/a")+
		"41 30 0:51 /x "+other+"//deleted rw - nfs nfs:/b rw\n")
	got, err := f.Mounts()
	if err != nil || len(got) != 3 {
		t.Fatalf("%v, %v", got, err)
	}
	for i, want := range []Mounted{
		{"/run", Layer{Source: "tmpfs", FSType: "tmpfs", Device: "0:49"}},
		{f.target, Layer{Source: "nfs:/a", FSType: "nfs4", Device: "0:50"}},
		{other, Layer{Source: "nfs:/b", FSType: "nfs", Device: "0:51"}},
	} {
		if got[i] != want {
			t.Errorf("%+v, want %+v", got[i], want)
		}
	}
	if layers, err := f.Layers(f.target); err != nil || len(layers) != 1 || layers[0].Device != "0:50" {
		t.Errorf("%v, %v", layers, err)
	}
}
