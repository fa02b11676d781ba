package volume

import (
	"maps"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

func TestParseServer(t *testing.T) {
	good := map[string]string{
		"nfs.example.com": "nfs.example.com",
		"nfs-1":           "nfs-1",
		"192.0.2.7":       "192.0.2.7",
		"2001:DB8:0::7":   "2001:db8::7",
		"[2001:db8::7]":   "2001:db8::7",
	}
	for in, want := range good {
		if got, err := ParseServer(in); err != nil || got != want {
			t.Errorf("ParseServer(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	// The second begins like an option of mount(8).
	for _, in := range []string{"", "-o", "--bind", "a b", "a,b", "a/b", "a#b", "[192.0.2.7]", "[nfs]", "fe80::1%eth0", "a\nb", "nfs:/x", strings.Repeat("a", 254)} {
		if got, err := ParseServer(in); err == nil {
			t.Errorf("ParseServer(%q) = %q, want an error", in, got)
		}
	}
}

func TestParseSharePath(t *testing.T) {
	good := map[string]string{"/": "/", "/srv": "/srv", "/srv/": "/srv", "//srv///volumes//": "/srv/volumes", "/with space": "/with space"}
	for in, want := range good {
		if got, err := ParseSharePath(in); err != nil || got != want {
			t.Errorf("ParseSharePath(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"", "srv", "../srv", "/srv/../etc", "/srv/./x", `/srv\x`, "/a#b", "/a\x00b", "/a\nb", "/" + strings.Repeat("a", 256), strings.Repeat("/abcdefg", 200)} {
		if got, err := ParseSharePath(in); err == nil {
			t.Errorf("ParseSharePath(%q) = %q, want an error", in, got)
		}
	}
}

// CVE-2026-3864 of csi-driver-nfs and CVE-2025-62878 of local-path: paths that
// leave the share.
func TestParseSubDirRefuses(t *testing.T) {
	for _, in := range []string{"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/..", "./a", `a\b`, `..\a`, "a#b", "a\tb", ".sharevol", ".sharevol/trash", ".sharevol-x", "a/.sharevol", "a\xff", "a\u2028b", strings.Repeat("a", 256)} {
		if got, err := ParseSubDir(in); err == nil {
			t.Errorf("ParseSubDir(%q) = %q, want an error", in, got)
		}
	}
	for _, in := range []string{"pvc-1", "a/b", "..a", "a..", ".hidden", "a/sharevol", "\u00fc\u4e2d"} {
		if got, err := ParseSubDir(in); err != nil || string(got) != in {
			t.Errorf("ParseSubDir(%q) = %q, %v; want it as it is", in, got, err)
		}
	}
}

// As messages and metrics have it.
func TestShareAndDirectoryAsText(t *testing.T) {
	cases := map[string]struct {
		share Share
		dir   SubDir
		want  string
	}{
		"host":       {Share{Server: "nfs", Path: "/srv"}, "pvc-1", "nfs:/srv/pvc-1"},
		"root share": {Share{Server: "nfs", Path: "/"}, "pvc-1", "nfs:/pvc-1"},
		"share root": {Share{Server: "nfs", Path: "/srv"}, "", "nfs:/srv"},
		"both roots": {Share{Server: "nfs", Path: "/"}, "", "nfs:/"},
		"IPv4":       {Share{Server: "192.0.2.7", Path: "/srv"}, "a/b", "192.0.2.7:/srv/a/b"},
		"IPv6":       {Share{Server: "2001:db8::7", Path: "/srv"}, "pvc-1", "[2001:db8::7]:/srv/pvc-1"},
	}
	for name, c := range cases {
		if got := (Directory{c.share, c.dir}).DisplayPath(); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
	for want, s := range map[string]Share{
		"nfs:/srv": {Server: "nfs", Path: "/srv"}, "[2001:db8::7]:/": {Server: "2001:db8::7", Path: "/"},
		"glusterfs nfs:/srv": {Type: "glusterfs", Server: "nfs", Path: "/srv"}, "local /srv": {Type: "local", Path: "/srv"},
	} {
		if got := s.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestCanonicalShare(t *testing.T) {
	a, b := Share{Server: "NFS.example.com.", Path: "/srv"}, Share{Server: "nfs.example.com", Path: "/srv"}
	if a.Canonical() != b.Canonical() || a == b {
		t.Errorf("%v, %v", a.Canonical(), b.Canonical())
	}
	if other := (Share{Type: "glusterfs", Server: "nfs.example.com", Path: "/srv"}); other.Canonical() == b.Canonical() {
		t.Error("shares of two types are one")
	}
}

func TestParseShare(t *testing.T) {
	for value, want := range map[string]Share{
		"nfs.example.com:/srv/": {Server: "nfs.example.com", Path: "/srv"}, "[2001:db8::7]:/": {Server: "2001:db8::7", Path: "/"}, "192.0.2.1:/a:/b": {Server: "192.0.2.1", Path: "/a:/b"},
	} {
		if got, err := ParseShare(value); err != nil || got != want {
			t.Errorf("%s: %+v, %v", value, got, err)
		}
	}
	for _, value := range []string{"", "nfs", "nfs:", "nfs:srv", ":/srv", "-o:/srv", "nfs:/srv/../etc", "/srv"} {
		if got, err := ParseShare(value); err == nil {
			t.Errorf("%q: %+v", value, got)
		}
	}
}

func TestHandle(t *testing.T) {
	for want, v := range map[string]Volume{
		"nfs#srv/x#pvc-1#pvc-1#":            {Directory{Share{Server: "nfs", Path: "/srv/x"}, "pvc-1"}, Delete},
		"nfs##pvc-1#pvc-1#retain":           {Directory{Share{Server: "nfs", Path: "/"}, "pvc-1"}, Retain},
		"2001:db8::7#srv#a/b#pvc-1#archive": {Directory{Share{Server: "2001:db8::7", Path: "/srv"}, "a/b"}, Archive},
	} {
		if got := v.Handle("pvc-1"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestParseOnDelete(t *testing.T) {
	for in, want := range map[string]OnDelete{"delete": Delete, "Retain": Retain, "ARCHIVE": Archive} {
		if got, err := ParseOnDelete(in); err != nil || got != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "keep", "delete ", "true"} {
		if got, err := ParseOnDelete(in); err == nil {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func TestParseClassNamesEveryFault(t *testing.T) {
	_, errs := ParseClass(
		map[string]string{"server": "-o", "onDelete": "shred", "block": "true", "subDir": "/x"}, Delete, ServerAndShare)
	message := Faults(errs)
	for _, want := range []string{
		`parameters[server]: Invalid value: "-o"`, `parameters[share]: Required value`,
		`parameters[onDelete]: Invalid value: "shred": must be one of delete, retain, archive`,
		`parameters[block]: Invalid value: "true": unknown parameter, must be one of type, server, share, subDir`,
		`parameters[subDir]: `,
	} {
		if !strings.Contains(message, want) {
			t.Errorf("message lacks %s:\n%s", want, message)
		}
	}
	if strings.Contains(message, "\n") {
		t.Errorf("message has more than one line: %q", message)
	}
	_, errs = ParseClass(map[string]string{"server": "a", "Server": "a", "share": "/"}, Delete, ServerAndShare)
	if !strings.Contains(Faults(errs), "more than once") {
		t.Errorf("a parameter given twice passes: %v", errs)
	}
}

func TestAttributesRoundTrip(t *testing.T) {
	for _, policy := range []OnDelete{Delete, Retain, Archive} {
		want := Volume{Directory{Share{Server: "2001:db8::7", Path: "/srv"}, "a/b"}, policy}
		got, errs := FromAttributes(want.Attributes(), field.NewPath("x"), ServerAndShare)
		if len(errs) > 0 || got != want {
			t.Errorf("got %+v, %v; want %+v", got, errs, want)
		}
	}
}

func TestFromAttributesOfStaticVolume(t *testing.T) {
	attributes := map[string]string{"Server": "[2001:db8::7]", "SHARE": "/srv", "storage.kubernetes.io/csiProvisionerIdentity": "x"}
	got, errs := FromAttributes(attributes, field.NewPath("x"), ServerAndShare)
	want := Volume{Directory{Share: Share{Server: "2001:db8::7", Path: "/srv"}}, Retain}
	if len(errs) > 0 || got != want {
		t.Errorf("got %+v, %v; want %+v", got, errs, want)
	}
	bad := maps.Clone(attributes)
	bad["subDir"], bad["Server"], bad["onDelete"] = "../other", "", "no"
	_, errs = FromAttributes(bad, field.NewPath("x"), ServerAndShare)
	if len(errs) != 3 {
		t.Errorf("want 3 faults, got %v", errs)
	}
	// A node plugin older than the provisioner does not know its policies, nor care.
	attributes["onDelete"] = "a later one"
	if got, errs := DirectoryFromAttributes(attributes, field.NewPath("x"), ServerAndShare); len(errs) > 0 || got != want.Directory {
		t.Errorf("got %+v, %v", got, errs)
	}
}
