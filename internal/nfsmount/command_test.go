package nfsmount

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
			var asked []string
			if options != "" {
				asked = []string{options}
			}
			if err := f.Mount(context.Background(), "nfs:/srv/pvc-1", f.target, asked); err != nil {
				t.Fatal(err)
			}
			all := strings.Join(append(asked, "fg,retry=0"), ",")
			want := "mount.nfs nfs:/srv/pvc-1 " + f.target + " -n -o " + all + "\n"
			if program == "mount" {
				want = "mount -n -t nfs -o " + all + " nfs:/srv/pvc-1 " + f.target + "\n"
			}
			if got := f.calls(t); got != want {
				t.Errorf("calls:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}
