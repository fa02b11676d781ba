package fs

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"sharevol.dev/sharevol/internal/mount"
	"sharevol.dev/sharevol/internal/volume"
)

// second is a type that has all that a value must have, and nothing of NFS.
var second = Type{
	Name: "second", Parameters: []string{volume.AttrSource},
	Share: func(values map[string]string, path *field.Path) (volume.Share, field.ErrorList) {
		server, below, found := strings.Cut(values[volume.AttrSource], ":/")
		if !found {
			return volume.Share{}, field.ErrorList{field.Required(path.Key(volume.AttrSource), "SERVER:/PATH")}
		}
		return volume.Share{Server: server, Path: "/" + below}, nil
	},
	FSTypes: []string{"fuse.second"},
	Source:  func(s volume.Share, dir volume.SubDir) string { return fmt.Sprintf("%s|%s|%s", s.Server, s.Path, dir) },
	Shows:   func(shown, source string) bool { return shown == source },
	Options: OptionRules{Refused: []string{"log-file"}, Always: []string{"acl"}},
}

// Tables of one and of two types, whatever Types has. NFS is the default of both.
var one, two = Table{nfs}, Table{nfs, second}

func TestTypeOfAClass(t *testing.T) {
	nfsShare := volume.Share{Server: "nfs", Path: "/srv"}
	cases := map[string]struct {
		table      Table
		parameters map[string]string
		share      volume.Share
		faults     string
	}{
		"no type":     {one, map[string]string{"server": "nfs", "share": "/srv"}, nfsShare, ""},
		"empty type":  {one, map[string]string{"type": "", "server": "nfs", "share": "/srv"}, nfsShare, ""},
		"nfs":         {one, map[string]string{"Type": "nfs", "server": "nfs", "share": "/srv"}, nfsShare, ""}, // one form, so that it is one share
		"unknown":     {one, map[string]string{"type": "smb", "server": "nfs", "share": "/srv"}, volume.Share{}, `parameters[type]: Unsupported value: "smb": supported values: "nfs"`},
		"letter case": {one, map[string]string{"type": "NFS", "server": "nfs", "share": "/srv"}, volume.Share{}, `parameters[type]: Unsupported value: "NFS": supported values: "nfs"`},
		"a source":    {one, map[string]string{"server": "nfs", "share": "/srv", "Source": "nfs:/srv"}, nfsShare, `parameters[source]: Forbidden: type nfs takes server and share`},
		"only a source": {one, map[string]string{"source": "nfs:/srv"}, volume.Share{},
			`parameters[server]: Required value: the NFS server's name or address; parameters[share]: Required value: the path that the server exports; parameters[source]: Forbidden: type nfs takes server and share`},
		"one fault of two": {one, map[string]string{"server": "nfs", "share": "srv"}, volume.Share{}, `parameters[share]: Invalid value: "srv": must be an absolute path on the server, for example /srv/volumes`},

		"two, nfs":     {two, map[string]string{"server": "nfs", "share": "/srv"}, nfsShare, ""},
		"two, second":  {two, map[string]string{"type": "second", "source": "s:/a"}, volume.Share{Type: "second", Server: "s", Path: "/a"}, ""},
		"two, mixed":   {two, map[string]string{"type": "second", "source": "s:/a", "share": "/srv"}, volume.Share{Type: "second", Server: "s", Path: "/a"}, `parameters[share]: Forbidden: type second takes source`},
		"two, nothing": {two, map[string]string{"type": "second"}, volume.Share{}, `parameters[source]: Required value: SERVER:/PATH`},
		"two, unknown": {two, map[string]string{"type": "third"}, volume.Share{}, `parameters[type]: Unsupported value: "third": supported values: "nfs", "second"`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			class, errs := c.table.ParseClass(c.parameters, nil, volume.Delete)
			if class.Share != c.share || volume.Faults(errs) != c.faults {
				t.Errorf("%+v, %s\nwant %+v, %s", class.Share, volume.Faults(errs), c.share, c.faults)
			}
		})
	}
}

func TestMountOptionsOfAClass(t *testing.T) {
	options := []string{"nfsvers=4.1,hard", "ro"}
	class, errs := Types.ParseClass(map[string]string{"server": "nfs", "share": "/srv"}, options, volume.Delete)
	if len(errs) > 0 || !slices.Equal(class.MountOptions, options) {
		t.Errorf("%q, %v", class.MountOptions, errs)
	}
	class.MountOptions[0] = "x"
	if options[0] == "x" {
		t.Error("the caller's options, from a cache, are shared with the class")
	}
	adoption := volume.Adoption{Name: "old", Share: volume.Share{Server: "nfs", Path: "/srv"}}
	adopted, errs := Types.ParseAdopted(adoption, nil, options[1:])
	if len(errs) > 0 || !slices.Equal(adopted.MountOptions, options[1:]) || adopted.Share != adoption.Share {
		t.Errorf("adopted: %+v, %v", adopted, errs)
	}
	bad := []string{"hard", "suid,addr=192.0.2.1", "X-mount.subdir=x", ""}
	_, errs = Types.ParseClass(map[string]string{"server": "-o", "share": "/srv"}, bad, volume.Delete)
	_, more := Types.ParseAdopted(adoption, map[string]string{"archiveOnDelete": "maybe"}, bad)
	for _, message := range []string{volume.Faults(errs), volume.Faults(more)} {
		for _, want := range []string{`mountOptions[1]: `, `"suid" is refused`, `"addr" is refused`, `"x-mount.subdir" is refused`, `mountOptions[3]: `, `parameters[`} {
			if !strings.Contains(message, want) {
				t.Errorf("message lacks %s:\n%s", want, message)
			}
		}
		if strings.Contains(message, "\n") {
			t.Errorf("message has more than one line: %q", message)
		}
	}
	// Each type has its own rules.
	source := map[string]string{"type": "second", "source": "s:/a"}
	if _, errs := two.ParseClass(source, []string{"addr=x", "log-file=/etc/passwd"}, volume.Delete); len(errs) != 1 || errs[0].Field != "mountOptions[1]" {
		t.Errorf("%v", errs)
	}
}

// What a PersistentVolume records is read as it was written, whatever the type.
func TestAttributesOfEachType(t *testing.T) {
	for wanted, share := range map[string]volume.Share{
		"onDelete server share subDir": {Server: "2001:db8::7", Path: "/srv"},
		"onDelete source subDir type":  {Type: "second", Server: "2001:db8::7", Path: "/srv"},
	} {
		want := volume.Volume{Directory: volume.Directory{Share: share, SubDir: "a/b"}, OnDelete: volume.Retain}
		attributes := want.Attributes()
		if names := strings.Join(slices.Sorted(maps.Keys(attributes)), " "); names != wanted {
			t.Errorf("attributes %s, want %s", names, wanted)
		}
		got, errs := volume.FromAttributes(attributes, field.NewPath("x"), two.Share)
		if len(errs) > 0 || got.OnDelete != want.OnDelete || got.SubDir != want.SubDir || got.Share.Type != share.Type || got.Share.Path != share.Path {
			t.Errorf("got %+v, %v; want %+v", got, errs, want)
		}
		if d, found := volume.LocationFromAttributes(attributes, two.Share); !found || d.Full() != "/srv/a/b" || d.Share.Type != share.Type {
			t.Errorf("%v, %v", d, found)
		}
	}
	attributes := map[string]string{"type": "nfs", "server": "nfs", "share": "/srv"}
	if d, errs := volume.DirectoryFromAttributes(attributes, field.NewPath("x"), one.Share); len(errs) > 0 || d.Share != (volume.Share{Server: "nfs", Path: "/srv"}) {
		t.Errorf("%v, %v", d, errs)
	}
	attributes["type"] = "second"
	if _, errs := volume.DirectoryFromAttributes(attributes, field.NewPath("x"), one.Share); len(errs) != 1 || errs[0].Field != "x[type]" {
		t.Errorf("%v", errs)
	}
}

func TestLookup(t *testing.T) {
	for name, want := range map[string]string{"": "nfs", "nfs": "nfs", "second": "second"} {
		if got, err := two.Lookup(name); err != nil || got.Name != want {
			t.Errorf("%q: %s, %v", name, got.Name, err)
		}
	}
	if got, err := one.Lookup("second"); err == nil || got.Name != "" || !strings.Contains(err.Error(), "nfs") {
		t.Errorf("%s, %v", got.Name, err)
	}
}

func TestMountOfAnotherType(t *testing.T) {
	of, err := two.Lookup("second")
	if err != nil {
		t.Fatal(err)
	}
	spec := of.Mount(volume.Share{Type: "second", Server: "s", Path: "/a"}, "b", []string{"ro"})
	if spec.Type != "second" || spec.Helper != "" || spec.Source != "s|/a|b" || !slices.Equal(spec.Options, []string{"ro", "acl"}) {
		t.Errorf("%+v", spec)
	}
	layer := mount.Layer{Source: "s|/a|b", FSType: "fuse.second"}
	if of, ours := two.Of(layer); !ours || of.Name != "second" || !spec.Shows(layer) {
		t.Errorf("%v: %s, %v", layer, of.Name, ours)
	}
	if layer.FSType = "nfs4"; spec.Shows(layer) {
		t.Errorf("%v is taken for %s", layer, spec.Source)
	}
	if helpers := two.Helpers(); !slices.Equal(helpers, []string{"mount.nfs"}) {
		t.Errorf("helpers %v", helpers)
	}
}

// Each type of the table has all that its users call.
func TestTypesAreComplete(t *testing.T) {
	for _, of := range Types {
		if of.Name == "" || len(of.Parameters) == 0 || of.Share == nil || len(of.FSTypes) == 0 || of.Magic == 0 || of.Source == nil || of.Shows == nil {
			t.Errorf("type %q lacks something: %+v", of.Name, of)
		}
	}
}
