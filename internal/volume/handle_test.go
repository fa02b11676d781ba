package volume

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

func TestParseHandle(t *testing.T) {
	volume := func(server, share, subDir string, policy OnDelete) Volume {
		return Volume{Directory{Share{Server: server, Path: share}, SubDir(subDir)}, policy}
	}
	read := map[string]Volume{
		"nfs-server.default.svc.cluster.local#share#pvc-4bcbf944":               volume("nfs-server.default.svc.cluster.local", "/share", "pvc-4bcbf944", ""),
		"nfs#share#subdir#pvc-4bcbf944":                                         volume("nfs", "/share", "subdir", ""),
		"nfs#share#subdir#pvc-4bcbf944#retain":                                  volume("nfs", "/share", "subdir", Retain),
		"nfs#share#subdir#pvc-4bcbf944#Archive":                                 volume("nfs", "/share", "subdir", Archive),
		"nfs#srv/nfs/vol#a/b/c#pvc-1#":                                          volume("nfs", "/srv/nfs/vol", "a/b/c", ""),
		"nfs#share#pvc-1##":                                                     volume("nfs", "/share", "pvc-1", ""),
		"192.0.2.1##pvc-1##":                                                    volume("192.0.2.1", "/", "pvc-1", ""),
		"[2001:DB8::1]#share#pvc-1##delete":                                     volume("2001:db8::1", "/share", "pvc-1", Delete),
		"2001:db8::1#share#pvc-1":                                               volume("2001:db8::1", "/share", "pvc-1", ""),
		"nfs#/share/#/a//b/":                                                    volume("nfs", "/share", "a/b", ""),
		"nfs-server.default.svc.cluster.local/share/pvc-4bcbf944-b6f7-4bd0":     volume("nfs-server.default.svc.cluster.local", "/share", "pvc-4bcbf944-b6f7-4bd0", ""),
		"nfs/srv/nfs/vol/pvc-1":                                                 volume("nfs", "/srv/nfs/vol", "pvc-1", ""),
		"nfs//pvc-1":                                                            volume("nfs", "/", "pvc-1", ""),
		volume("nfs", "/", "a/b", Archive).Handle("pvc-1"):                      volume("nfs", "/", "a/b", Archive),
		volume("2001:db8::1", "/srv", "pvc-1", Delete).Handle("pvc-1"):          volume("2001:db8::1", "/srv", "pvc-1", ""),
		volume("nfs.example.com.", "/srv", "a b/ü", Retain).Handle("by-hand-1"): volume("nfs.example.com.", "/srv", "a b/ü", Retain),
	}
	for handle, want := range read {
		if got, err := ParseHandle(handle); err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", handle, got, err, want)
		}
	}
	// csi-driver-nfs CVE-2026-3864 and the like.
	for _, handle := range []string{
		"", "/", "#", "##", "####", "#####", "nfs", "nfs/", "nfs/share", "nfs#share", "nfs#share#", "nfs#share##", "nfs#share###", "nfs-server/share##",
		"nfs#share#..", "nfs#share#../victim", "nfs#share#a/../../victim", "nfs#share#a/..", "nfs#share#./a", "nfs#share#.", "nfs#../etc#pvc-1", "nfs#share/../..#pvc-1",
		"nfs/../pvc-1", "nfs/share/..", "nfs/share/.", "nfs/share/../../pvc-1", "../share/pvc-1", "nfs/share/pvc-1/", "/share/pvc-1",
		`nfs#share#..\victim`, `nfs#share#a\b`, `nfs#sha\re#pvc-1`, `nfs/share/..\pvc-1`, `nfs\share\pvc-1`, "nfs#share#/", "nfs#share#//",
		"nfs#share#pvc-1#..", "nfs#share#pvc-1#../../x", `nfs#share#pvc-1#a\b`, "nfs#share#pvc-1#a/b#", "nfs#share#pvc-1#.#",
		"nfs#share#pvc-1#pvc-1#shred", "nfs#share#pvc-1#pvc-1#retain#", "nfs#share#pvc-1#pvc-1#retain#x", "nfs#share#pvc-1#pvc-1#delete ",
		"-o#share#pvc-1", "nfs:/etc#share#pvc-1", "nfs#share#pvc-1\x00", "nfs#share#a\nb", "nfs#share#\xff", "nfs#share#.sharevol", "nfs#share#.sharevol/owners", "nfs#share#a/.sharevol-x",
		"fe80::1%eth0#share#pvc-1", "nfs#share#" + strings.Repeat("x", 256), "nfs#share#" + strings.Repeat("x/", 600) + "x",
	} {
		if got, err := ParseHandle(handle); err == nil {
			t.Errorf("%q passes: %+v", handle, got)
		}
	}
}

func FuzzParseHandle(f *testing.F) {
	f.Add("nfs#share#a/b#pvc-1#retain")
	f.Add("nfs/share/pvc-1")
	f.Fuzz(func(t *testing.T, handle string) {
		v, err := ParseHandle(handle)
		if err != nil {
			return
		}
		if _, err := ParseSubDir(string(v.SubDir)); err != nil || v.Share.Path == "" || v.Share.Server == "" {
			t.Errorf("%q: %+v", handle, v)
		}
		if again, err := ParseHandle(v.Handle("pvc-1")); err != nil || again.Directory != v.Directory {
			t.Errorf("%q: %+v, then %+v, %v", handle, v, again, err)
		}
	})
}

// What csi-driver-nfs's releases have written, from the first on.
func TestFromAdopted(t *testing.T) {
	const identity = "storage.kubernetes.io/csiProvisionerIdentity"
	m := func(pairs ...string) map[string]string {
		attributes := map[string]string{identity: "1700000000000-8081-nfs.csi.k8s.io"}
		for i := 0; i < len(pairs); i += 2 {
			attributes[pairs[i]] = pairs[i+1]
		}
		return attributes
	}
	made := []string{"csi.storage.k8s.io/pv/name", "pvc-1", "csi.storage.k8s.io/pvc/name", "data", "csi.storage.k8s.io/pvc/namespace", "team"}
	cases := map[string]struct {
		handle     string
		attributes map[string]string
		want       string // "share subDir policy"; empty: refused
	}{
		"today's":                      {"nfs#share#pvc-1##", m(append(made, "server", "nfs", "share", "/share", "subdir", "pvc-1", "mountPermissions", "0")...), "/share pvc-1 archive"},
		"today's, subDir":              {"nfs#share#team/data#pvc-1#", m(append(made, "server", "nfs", "share", "/share", "subDir", "team/data")...), "/share team/data archive"},
		"subDir with slashes":          {"nfs#share#team/data#pvc-1#", m("server", "nfs", "share", "/share/", "subDir", "/team/data/"), "/share team/data archive"},
		"any letter case":              {"nfs#share#pvc-1#", m("SERVER", "NFS", "Share", "/share", "SUBDIR", "pvc-1", "ONDELETE", "Retain"), "/share pvc-1 retain"},
		"policy in the handle":         {"nfs#share#pvc-1##retain", m("server", "nfs", "share", "/share", "subdir", "pvc-1"), "/share pvc-1 retain"},
		"policy in both":               {"nfs#share#pvc-1##Archive", m("server", "nfs", "share", "/share", "subdir", "pvc-1", "onDelete", "archive"), "/share pvc-1 archive"},
		"delete is not in the handle":  {"nfs#share#pvc-1##", m("server", "nfs", "share", "/share", "subdir", "pvc-1", "onDelete", "delete"), "/share pvc-1 delete"},
		"empty policy":                 {"nfs#share#pvc-1##", m("server", "nfs", "share", "/share", "subdir", "pvc-1", "onDelete", ""), "/share pvc-1 archive"},
		"the server's root":            {"nfs##pvc-1##", m("server", "nfs", "share", "/", "subdir", "pvc-1"), "/ pvc-1 archive"},
		"IPv6":                         {"[2001:db8::1]#share#pvc-1##", m("server", "2001:DB8:0::1", "share", "/share", "subdir", "pvc-1"), "/share pvc-1 archive"},
		"old, share and subDir in one": {"nfs/srv/vol/pvc-1", m("server", "nfs", "share", "/srv/vol/pvc-1"), "/srv/vol pvc-1 archive"},
		"the same with #":              {"nfs#srv/vol#pvc-1", m("server", "nfs", "share", "/srv/vol/pvc-1"), "/srv/vol pvc-1 archive"},
		"old, with attributes":         {"nfs/share/pvc-1", m("server", "nfs", "share", "/share", "subDir", "pvc-1"), "/share pvc-1 archive"},
		"no attributes":                {"nfs#share#pvc-1##retain", nil, "/share pvc-1 retain"},
		"no attributes, old":           {"nfs/share/pvc-1", m(), "/share pvc-1 archive"},
		"no place in the attributes":   {"nfs#share#pvc-1#", m("onDelete", "delete"), "/share pvc-1 delete"},

		"static, the share root":   {"nfs-server.default.svc.cluster.local/share##", m("server", "nfs-server.default.svc.cluster.local", "share", "/"), ""},
		"static, any handle":       {"my-volume", m("server", "nfs", "share", "/share", "subDir", "pvc-1"), ""},
		"root by the attributes":   {"nfs#share#pvc-1##", m("server", "nfs", "share", "/share"), ""},
		"root by the handle":       {"nfs#share###", m("server", "nfs", "share", "/share", "subDir", "pvc-1"), ""},
		"another directory":        {"nfs#share#pvc-2##", m("server", "nfs", "share", "/share", "subDir", "pvc-1"), ""},
		"another share":            {"nfs#other#pvc-1##", m("server", "nfs", "share", "/share", "subDir", "pvc-1"), ""},
		"another server":           {"elsewhere#share#pvc-1##", m("server", "nfs", "share", "/share", "subDir", "pvc-1"), ""},
		"up in the handle":         {"nfs#share#../victim##", m("server", "nfs", "share", "/share", "subDir", "pvc-1"), ""},
		"up in the attributes":     {"nfs#share#pvc-1##", m("server", "nfs", "share", "/share", "subDir", "x/../pvc-1"), ""},
		"up in both":               {"nfs#share#../victim##", m("server", "nfs", "share", "/share", "subDir", "../victim"), ""},
		"backslash in both":        {`nfs#share#..\victim##`, m("server", "nfs", "share", "/share", "subDir", `..\victim`), ""},
		"too many fields":          {"nfs#share#pvc-1#pvc-1##", m("server", "nfs", "share", "/share", "subDir", "pvc-1"), ""},
		"no share":                 {"nfs#share#pvc-1##", m("server", "nfs", "subDir", "pvc-1"), ""},
		"twice":                    {"nfs#share#pvc-1##", m("server", "nfs", "Server", "nfs", "share", "/share", "subDir", "pvc-1"), ""},
		"policies differ":          {"nfs#share#pvc-1##retain", m("server", "nfs", "share", "/share", "subDir", "pvc-1", "onDelete", "delete"), ""},
		"no policy":                {"nfs#share#pvc-1##", m("server", "nfs", "share", "/share", "subDir", "pvc-1", "onDelete", "shred"), ""},
		"subDir of slashes":        {"nfs#share#pvc-1##", m("server", "nfs", "share", "/share", "subDir", "//"), ""},
		"a variable without value": {"nfs#share#pvc-1##", m("server", "nfs", "share", "/share", "subDir", "${pv.metadata.name}"), ""},
	}
	for name, c := range cases {
		v, errs := FromAdopted(c.handle, c.attributes, Archive, field.NewPath("spec", "csi"))
		got := ""
		if len(errs) == 0 {
			got = strings.Join([]string{v.Share.Path, string(v.SubDir), string(v.OnDelete)}, " ")
		}
		if got != c.want {
			t.Errorf("%s: %q, %v; want %q", name, got, errs, c.want)
		}
		if strings.Contains(Faults(errs), "\n") {
			t.Errorf("%s: more than one line: %q", name, Faults(errs))
		}
	}
}

// The way back: csi-driver-nfs must find in our volumes what it would have written. It
// splits a handle at each # into at least three fields, of which server, share
// and subDir are joined as they are, and deletes the joined path; it mounts by the
// attributes server, share and subDir, and reads no other of ours than onDelete.
func TestCSIDriverNFSReadsOurVolumes(t *testing.T) {
	taken := []string{"server", "share", "subdir", "ondelete"} // that it takes, in lower case
	for _, v := range []Volume{
		{Directory{Share{Server: "nfs.example.com", Path: "/srv/volumes"}, "pvc-1"}, Delete},
		{Directory{Share{Server: "nfs.example.com", Path: "/"}, "a/b/c"}, Retain},
		{Directory{Share{Server: "192.0.2.1", Path: "/srv"}, "team a/ü"}, Archive},
		{Directory{Share{Server: "2001:db8::1", Path: "/srv"}, "pvc-1"}, Delete},
	} {
		fields := strings.Split(v.Handle("pvc-1"), "#")
		if len(fields) != 5 {
			t.Fatalf("%q", fields)
		}
		if fields[0] != v.Share.Server || "/"+fields[1] != v.Share.Path || fields[2] != string(v.SubDir) || fields[3] != "pvc-1" {
			t.Errorf("%+v has the handle %q", v, fields)
		}
		for _, f := range fields[1:3] { // it trims what it writes, and takes what it reads as it is
			if f != strings.Trim(f, "/") {
				t.Errorf("slashes in %q", fields)
			}
		}
		if want := map[OnDelete]string{Delete: "", Retain: "retain", Archive: "archive"}[v.OnDelete]; fields[4] != want {
			t.Errorf("policy %q in %q", fields[4], fields)
		}
		for _, name := range slices.Sorted(maps.Keys(v.Attributes())) {
			if !slices.Contains(taken, strings.ToLower(name)) {
				t.Errorf("attribute %s", name)
			}
		}
		attributes := v.Attributes()
		if attributes["server"] != v.Share.Server || attributes["share"] != v.Share.Path || attributes["subDir"] != string(v.SubDir) {
			t.Errorf("attributes %v", attributes)
		}
		again, errs := FromAdopted(v.Handle("pvc-1"), attributes, Archive, field.NewPath("x"))
		if len(errs) > 0 || again != v {
			t.Errorf("%+v is read as %+v, %v", v, again, errs)
		}
	}
}

// A hand-made volume of csi-driver-nfs may have variables and mount options.
func TestStaticVolumesOfCSIDriverNFS(t *testing.T) {
	attributes := map[string]string{
		"server": "nfs", "share": "/share", "subDir": "/${pvc.metadata.namespace}/${pvc.metadata.name}/", "mountOptions": "nfsvers=4.1,hard",
		"csi.storage.k8s.io/pvc/name": "data", "csi.storage.k8s.io/pvc/namespace": "team",
	}
	d, errs := DirectoryFromAttributes(attributes, field.NewPath("x"), ServerAndShare)
	if len(errs) > 0 || d.DisplayPath() != "nfs:/share/team/data" {
		t.Errorf("%v, %v", d, errs)
	}
	options, errs := MountOptionsFromAttributes(attributes, field.NewPath("x"), func(string) error { return nil })
	if len(errs) > 0 || !slices.Equal(options, []string{"nfsvers=4.1", "hard"}) {
		t.Errorf("%q, %v", options, errs)
	}
	options, errs = MountOptionsFromAttributes(attributes, field.NewPath("x"), func(string) error { return errors.New("is refused") })
	if len(errs) != 1 || len(options) > 0 || errs[0].Error() != `x[mountOptions]: Invalid value: "nfsvers=4.1,hard": is refused` {
		t.Errorf("%q, %v", options, errs)
	}
	attributes["csi.storage.k8s.io/pvc/name"] = "../../etc"
	if d, errs := DirectoryFromAttributes(attributes, field.NewPath("x"), ServerAndShare); len(errs) == 0 {
		t.Errorf("%v", d)
	}
}
