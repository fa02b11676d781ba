package volume

import "testing"

func TestLocationFromAttributes(t *testing.T) {
	cases := map[string]struct {
		attributes map[string]string
		want       string // server and full path
	}{
		"ours":                      {map[string]string{"server": "nfs", "share": "/srv", "subDir": "a/b", "onDelete": "delete"}, "nfs /srv/a/b"},
		"static, share root":        {map[string]string{"server": "nfs", "share": "/srv"}, "nfs /srv"},
		"letter case":               {map[string]string{"Server": "nfs", "SHARE": "/srv", "subdir": "a"}, "nfs /srv/a"},
		"csi-driver-nfs, slashes":   {map[string]string{"server": "nfs", "share": "srv/", "subDir": "/a/b/"}, "nfs /srv/a/b"},
		"csi-driver-nfs, the root":  {map[string]string{"server": "nfs", "share": "/", "subDir": "pvc-1"}, "nfs /pvc-1"},
		"csi-driver-nfs, variables": {map[string]string{"server": "nfs", "share": "/", "subDir": "${pvc.metadata.namespace}/${pvc.metadata.name}/${pv.metadata.name}", "csi.storage.k8s.io/pvc/name": "n", "csi.storage.k8s.io/pvc/namespace": "s"}, "nfs /s/n/${pv.metadata.name}"},
		"in-tree nfs":               {map[string]string{"server": "NFS.example.com.", "share": "/srv/a/"}, "nfs.example.com /srv/a"},
		"whole server":              {map[string]string{"server": "[2001:DB8::0:1]", "share": "//"}, "2001:db8::1 /"},
		"subDir of slashes":         {map[string]string{"server": "nfs", "share": "/srv", "subDir": "//"}, "nfs /srv"},
		"out of the share":          {map[string]string{"server": "nfs", "share": "/srv/a/../b", "subDir": "../c"}, "nfs /srv/c"},
		"out of the server":         {map[string]string{"server": "nfs", "share": "/srv", "subDir": "../../../c/./d"}, "nfs /c/d"},
	}
	for name, c := range cases {
		d, ok := LocationFromAttributes(c.attributes, ServerAndShare)
		if got := CanonicalServer(d.Share.Server) + " " + d.Full(); !ok || got != c.want {
			t.Errorf("%s: %q, %v; want %q", name, got, ok, c.want)
		}
	}
	for name, attributes := range map[string]map[string]string{
		"nothing": nil, "no share": {"server": "nfs"}, "no server": {"share": "/srv"}, "empty": {"server": "", "share": "/srv"},
		"smb": {"source": "//server/share"}, "our type, no share": {"type": "nfs", "source": "//server/share"},
	} {
		if d, ok := LocationFromAttributes(attributes, ServerAndShare); ok {
			t.Errorf("%s: %v", name, d)
		}
	}
}

// Attributes of the same spelling must not lead to one place today and to another tomorrow.
func TestLocationIsTheSameEachTime(t *testing.T) {
	attributes := map[string]string{"server": "a", "Server": "b", "SERVER": "c", "share": "/x", "Share": "/y", "subDir": "d", "subdir": "e"}
	first, _ := LocationFromAttributes(attributes, ServerAndShare)
	for range 50 {
		if again, _ := LocationFromAttributes(attributes, ServerAndShare); again != first {
			t.Fatalf("once %v, once %v", first, again)
		}
	}
}

func TestCanonicalServer(t *testing.T) {
	for in, want := range map[string]string{
		"nfs": "nfs", "NFS.Example.COM": "nfs.example.com", "nfs.example.com.": "nfs.example.com", "192.0.2.1": "192.0.2.1",
		"2001:DB8::0:1": "2001:db8::1", "[2001:db8::1]": "2001:db8::1", "2001:0db8:0:0::0001": "2001:db8::1",
		"[nfs]": "nfs", "::ffff:192.0.2.1": "192.0.2.1", "[::FFFF:c000:201]": "192.0.2.1", "": "",
	} {
		if got := CanonicalServer(in); got != want {
			t.Errorf("CanonicalServer(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestFull(t *testing.T) {
	for want, d := range map[string]Directory{
		"/":        {Share{Server: "nfs", Path: "/"}, ""},
		"/a":       {Share{Server: "nfs", Path: "/"}, "a"},
		"/srv":     {Share{Server: "nfs", Path: "/srv/"}, ""},
		"/srv/a/b": {Share{Server: "nfs", Path: "/srv"}, "a/b"},
	} {
		if got := d.Full(); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}
