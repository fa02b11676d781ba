package mount

import (
	"context"
	"strings"
	"testing"
)

// What mount(8) does itself is left to it; mount.nfs would refuse it, or take it for
// something else.
func TestWhatMountsWithWhichOptions(t *testing.T) {
	for options, program := range map[string]string{
		"":                               "mount.nfs",
		"nfsvers=4.2,hard":               "mount.nfs",
		"ro,noexec,_netdev,x-systemd.y":  "mount.nfs",
		"context=system_u:object_r:x:s0": "mount.nfs",
		"rsize=1048576,sec=krb5p":        "mount.nfs",
		"rshared":                        "mount",
		"hard,private,ro":                "mount",
		"unbindable":                     "mount",
		"ro=vfs":                         "mount",
		"hard,nosuid=recursive":          "mount",
	} {
		t.Run(options, func(t *testing.T) {
			f := newFixture(t, mountsWhatIsAsked, umountsTheLast)
			spec, o := nfs("nfs:/srv/pvc-1"), ""
			if options != "" {
				spec.Options, o = []string{options}, "-o "+options
			}
			if err := f.Mount(context.Background(), spec, f.target); err != nil {
				t.Fatal(err)
			}
			want := strings.TrimSpace("mount.nfs nfs:/srv/pvc-1 " + f.target + " -n " + o)
			if program == "mount" {
				want = "mount -n -t nfs " + o + " nfs:/srv/pvc-1 " + f.target
			}
			if got := f.calls(t); got != want+"\n" {
				t.Errorf("calls:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

// A type without a helper is mount(8)'s.
func TestMountWithoutAHelper(t *testing.T) {
	f := newFixture(t, mountsWhatIsAsked, umountsTheLast)
	spec := nfs("nfs:/srv/pvc-1", "hard", "ro")
	spec.Helper = ""
	if err := f.Mount(context.Background(), spec, f.target); err != nil {
		t.Fatal(err)
	}
	if got, want := f.calls(t), "mount -n -t nfs -o hard,ro nfs:/srv/pvc-1 "+f.target+"\n"; got != want {
		t.Errorf("calls:\n%s\nwant:\n%s", got, want)
	}
}
