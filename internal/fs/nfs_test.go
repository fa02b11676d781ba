package fs

import (
	"slices"
	"strings"
	"testing"

	"sharevol.dev/sharevol/internal/mount"
	"sharevol.dev/sharevol/internal/volume"
)

func TestSourceOfNFS(t *testing.T) {
	cases := map[string]struct {
		server, path string
		dir          volume.SubDir
		want         string
	}{
		"host":       {"nfs", "/srv", "pvc-1", "nfs:/srv/pvc-1"},
		"root share": {"nfs", "/", "pvc-1", "nfs:/pvc-1"},
		"share root": {"nfs", "/srv", "", "nfs:/srv"},
		"both roots": {"nfs", "/", "", "nfs:/"},
		"IPv4":       {"192.0.2.7", "/srv", "a/b", "192.0.2.7:/srv/a/b"},
		"IPv6":       {"2001:db8::7", "/srv", "pvc-1", "[2001:db8::7]:/srv/pvc-1"},
	}
	for name, c := range cases {
		if got := nfs.Source(volume.Share{Server: c.server, Path: c.path}, c.dir); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func TestHowNFSIsMounted(t *testing.T) {
	options := []string{"nfsvers=4.2", "retry=5", "bg"}
	spec := nfs.Mount(volume.Share{Server: "nfs", Path: "/srv"}, "pvc-1", options)
	if spec.Type != "nfs" || spec.Source != "nfs:/srv/pvc-1" || spec.Helper != "mount.nfs" {
		t.Errorf("%+v", spec)
	}
	// The last of contradicting options counts: no class has mount.nfs try again, or in the background.
	if want := []string{"nfsvers=4.2", "retry=5", "bg", "fg", "retry=0"}; !slices.Equal(spec.Options, want) || len(options) != 3 {
		t.Errorf("%q, want %q", spec.Options, want)
	}
}

func TestWhatMountinfoShowsOfNFS(t *testing.T) {
	cases := []struct {
		layer  mount.Layer
		server string
		path   string
		want   bool
	}{
		{mount.Layer{Source: "nfs:/a/b", FSType: "nfs4"}, "nfs", "/a/b", true},
		{mount.Layer{Source: "nfs:/a/b/", FSType: "nfs"}, "nfs", "/a/b", true},
		{mount.Layer{Source: "other-name:/a", FSType: "nfs4"}, "nfs", "/a", true}, // one superblock, two names
		{mount.Layer{Source: "[2001:db8::7]:/a", FSType: "nfs4"}, "2001:db8::7", "/a", true},
		{mount.Layer{Source: "nfs:/a", FSType: "nfs4"}, "nfs", "/a/b", false},
		{mount.Layer{Source: "nfs:/", FSType: "nfs4"}, "nfs", "/a", false},
		{mount.Layer{Source: "tmpfs", FSType: "tmpfs"}, "nfs", "/a", false},
		{mount.Layer{Source: "nfs:/a", FSType: "ext4"}, "nfs", "/a", false},
		{mount.Layer{Source: "nonsense", FSType: "nfs4"}, "nfs", "/a", false},
	}
	for _, c := range cases {
		spec := nfs.Mount(volume.Share{Server: c.server, Path: c.path}, "", nil)
		if got := spec.Shows(c.layer); got != c.want {
			t.Errorf("%v shows %s: %v", c.layer, spec.Source, got)
		}
		if of, ours := Types.Of(c.layer); ours != strings.HasPrefix(c.layer.FSType, "nfs") || ours && of.Name != "nfs" {
			t.Errorf("%v is of type %s, %v", c.layer, of.Name, ours)
		}
	}
}

// As mountinfo shows the options of a superblock.
func TestVersionOfNFS(t *testing.T) {
	for options, want := range map[string]string{
		"rw,vers=4.2,rsize=1048576,namlen=255,hard": "4.2", "rw,vers=3,mountvers=3": "3", "": "", "rw,nfsvers=4": "", "vers": "",
	} {
		if got := nfs.Version(options); got != want {
			t.Errorf("%s: %q, want %q", options, got, want)
		}
	}
	if got := (Type{}).Version("rw,vers=4.2,=x"); got != "" {
		t.Errorf("of a type without versions: %q", got)
	}
}

// A local directory that shows where a share should be mounted.
func TestCheckRoot(t *testing.T) {
	if err := nfs.CheckRoot(t.TempDir()); err == nil || !strings.Contains(err.Error(), "no share of type nfs is mounted") {
		t.Errorf("got %v", err)
	}
	if err := nfs.CheckRoot("/nonexistent"); err == nil {
		t.Error("no error")
	}
	if err := (Type{Name: "proc", Magic: 0x9fa0}).CheckRoot("/proc"); err != nil { // PROC_SUPER_MAGIC
		t.Error(err)
	}
}
