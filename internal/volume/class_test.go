package volume

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// given returns the parameters of a class that has server and share, and these.
func given(parameters ...string) map[string]string {
	all := map[string]string{"server": "nfs", "share": "/srv"}
	for i := 0; i < len(parameters); i += 2 {
		all[parameters[i]] = parameters[i+1]
	}
	return all
}

// class parses the class with given parameters. It returns its faults as a user sees them.
func class(parameters ...string) (Class, []string) {
	c, errs := ParseClass(given(parameters...), Delete, ServerAndShare)
	return c, lines(errs)
}

func lines(errs field.ErrorList) []string {
	var all []string
	for _, err := range errs {
		all = append(all, err.Error())
	}
	return all
}

// Every row of the table of parameters: its default, its aliases, its range, and
// that letter case does not matter.
func TestParameters(t *testing.T) {
	cases := map[string]struct {
		parameters []string
		want       func(*Class)
	}{
		"defaults":                 {nil, func(*Class) {}},
		"server, IPv6":             {[]string{"server", "[2001:DB8::0:1]"}, func(c *Class) { c.Share.Server = "2001:db8::1" }},
		"share, server's root":     {[]string{"share", "/"}, func(c *Class) { c.Share.Path = "/" }},
		"share, slashes":           {[]string{"share", "/srv//a/"}, func(c *Class) { c.Share.Path = "/srv/a" }},
		"letter case":              {[]string{"MOUNTPERMISSIONS", "0750", "Uid", "0", "gId", "7"}, func(c *Class) { c.Mode, c.UID, c.GID = 0o750, 0, 7 }},
		"onDelete delete":          {[]string{"onDelete", "DELETE"}, func(*Class) {}},
		"onDelete retain":          {[]string{"onDelete", "Retain"}, func(c *Class) { c.OnDelete = Retain }},
		"onDelete archive":         {[]string{"ondelete", "archive"}, func(c *Class) { c.OnDelete = Archive }},
		"archiveOnDelete true":     {[]string{"archiveOnDelete", "true"}, func(c *Class) { c.OnDelete = Archive }},
		"archiveOnDelete 1":        {[]string{"ARCHIVEONDELETE", "1"}, func(c *Class) { c.OnDelete = Archive }},
		"archiveOnDelete False":    {[]string{"archiveOnDelete", "False"}, func(*Class) {}},
		"onDelete twice, alike":    {[]string{"archiveOnDelete", "t", "onDelete", "archive"}, func(c *Class) { c.OnDelete = Archive }},
		"mode left as it is":       {[]string{"mountPermissions", "0"}, func(c *Class) { c.Mode = 0 }},
		"mode, setgid and sticky":  {[]string{"mountPermissions", "3777"}, func(c *Class) { c.Mode = 0o3777 }},
		"mode with a leading zero": {[]string{"mountPermissions", "02770"}, func(c *Class) { c.Mode = 0o2770 }},
		"largest ids":              {[]string{"uid", "4294967294", "gid", "4294967294"}, func(c *Class) { c.UID, c.GID = 4294967294, 4294967294 }},
		"empty is as good as none": {[]string{
			"onDelete", "", "archiveOnDelete", "", "subDir", "", "pathPattern", "", "mountPermissions", "", "uid", "", "gid", "",
			"subDirAllowSlashes", "", "csi.storage.k8s.io/provisioner-secret-name", "", "csi.storage.k8s.io/provisioner-secret-namespace", "",
		}, func(*Class) {}},
		"subDirAllowSlashes": {[]string{"subdirallowslashes", "true"}, func(c *Class) { c.SubDir.slashes = true }},
		"other sidecars' keys": {[]string{"csi.storage.k8s.io/fsType", "nfs", "csi.storage.k8s.io/pv/name", "x", "CSI.storage.k8s.io/Node-Stage-Secret-Name", "x"}, func(c *Class) {
			c.Ignored = []string{"CSI.storage.k8s.io/Node-Stage-Secret-Name", "csi.storage.k8s.io/fsType", "csi.storage.k8s.io/pv/name"}
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			want := Class{
				Share: Share{Server: "nfs", Path: "/srv"}, OnDelete: Delete, Mode: 0o777, UID: -1, GID: -1,
				SubDir: Template{parameter: "subDir", parts: []part{{text: "${pv.metadata.name}", variable: volumeName}}},
			}
			c.want(&want)
			if got, faults := class(c.parameters...); len(faults) > 0 || !reflect.DeepEqual(got, want) {
				t.Errorf("%+v, %q\nwant %+v", got, faults, want)
			}
		})
	}
}

func TestDefaultOnDelete(t *testing.T) {
	for _, policy := range []OnDelete{Delete, Retain, Archive} {
		for _, parameters := range []map[string]string{given(), given("onDelete", "")} {
			if c, errs := ParseClass(parameters, policy, ServerAndShare); len(errs) > 0 || c.OnDelete != policy {
				t.Errorf("default %s: %s, %v", policy, c.OnDelete, errs)
			}
		}
		if c, errs := ParseClass(given("onDelete", "delete"), policy, ServerAndShare); len(errs) > 0 || c.OnDelete != Delete {
			t.Errorf("default %s outdoes the class: %s, %v", policy, c.OnDelete, errs)
		}
	}
}

// Whatever is wrong is refused, with a message that says what is allowed.
func TestParametersRefused(t *testing.T) {
	const list = "unknown parameter, must be one of type, server, share, subDir, pathPattern, onDelete, archiveOnDelete, mountPermissions, uid, gid, subDirAllowSlashes, " +
		"csi.storage.k8s.io/provisioner-secret-name, csi.storage.k8s.io/provisioner-secret-namespace, csi.storage.k8s.io/node-publish-secret-name, csi.storage.k8s.io/node-publish-secret-namespace"
	const mode = "must be an octal mode from 0 to 3777: permission bits, setgid (2000) and sticky (1000)"
	const id = "must be a number from 0 to 4294967294"
	cases := map[string]struct {
		parameters []string
		want       []string
	}{
		"no server":           {[]string{"server", ""}, []string{`[server]: Required value: the NFS server's name or address`}},
		"no share":            {[]string{"share", ""}, []string{`[share]: Required value: the path that the server exports`}},
		"share, relative":     {[]string{"share", "srv"}, []string{`[share]: Invalid value: "srv": must be an absolute path on the server, for example /srv/volumes`}},
		"share, reserved":     {[]string{"share", "/srv/.sharevol/trash"}, []string{`[share]: Invalid value: "/srv/.sharevol/trash": must not have a path component that begins with .sharevol, which sharevol keeps for itself`}},
		"case twice":          {[]string{"Server", "nfs"}, []string{`[server]: Invalid value: "nfs": given more than once, in different letter case`}},
		"unknown":             {[]string{"onDelte", "retain"}, []string{`[onDelte]: Invalid value: "retain": ` + list}},
		"unknown, look-alike": {[]string{"\u017fubDir", "x"}, []string{"[\u017fubDir]: Invalid value: \"x\": " + list}},
		"unknown, two lines":  {[]string{"a\nb", "c\nd"}, []string{`["a\nb"]: Invalid value: "c\nd": ` + list}},
		"unknown of sidecars": {[]string{"csi.storage.k8s.io/x", "y"}, []string{`[csi.storage.k8s.io/x]: Invalid value: "y": ` + list}},
		"onDelete":            {[]string{"onDelete", "shred"}, []string{`[onDelete]: Invalid value: "shred": must be one of delete, retain, archive`}},
		"onDelete's alias":    {[]string{"archiveOnDelete", "perhaps"}, []string{`[archiveOnDelete]: Invalid value: "perhaps": must be true or false`}},
		"onDelete differs":    {[]string{"onDelete", "delete", "archiveOnDelete", "true"}, []string{`[archiveOnDelete]: Invalid value: "true": means onDelete: archive, and onDelete has another value: give one of them`}},
		"retain is neither":   {[]string{"onDelete", "retain", "archiveOnDelete", "false"}, []string{`[archiveOnDelete]: Invalid value: "false": means onDelete: delete, and onDelete has another value: give one of them`}},
		"mode, not octal":     {[]string{"mountPermissions", "888"}, []string{`[mountPermissions]: Invalid value: "888": ` + mode}},
		"mode, setuid":        {[]string{"mountPermissions", "4755"}, []string{`[mountPermissions]: Invalid value: "4755": ` + mode}},
		"mode, prefix":        {[]string{"mountPermissions", "0o755"}, []string{`[mountPermissions]: Invalid value: "0o755": ` + mode}},
		"ids":                 {[]string{"uid", "root", "gid", "4294967295"}, []string{`[gid]: Invalid value: "4294967295": ` + id, `[uid]: Invalid value: "root": ` + id}},
		"id, negative":        {[]string{"uid", "-1"}, []string{`[uid]: Invalid value: "-1": ` + id}},
		"subDirAllowSlashes":  {[]string{"subDirAllowSlashes", "y"}, []string{`[subDirAllowSlashes]: Invalid value: "y": must be true or false`}},
		"hash": {[]string{"server", "a#b", "share", "/a#b", "subDir", "a#b"}, []string{
			`[server]: Invalid value: "a#b": must be a host name, an IPv4 address or an IPv6 address`,
			`[share]: Invalid value: "/a#b": must not contain a backslash or #`, `[subDir]: Invalid value: "a#b": must not contain a backslash or #`}},
		"all at once, sorted": {[]string{"server", "-o", "share", `x\y`, "uid", "x", "onDelete", "x", "subDir", "../#"}, []string{
			`[onDelete]: Invalid value: "x": must be one of delete, retain, archive`,
			`[server]: Invalid value: "-o": must be a host name, an IPv4 address or an IPv6 address`,
			`[share]: Invalid value: "x\\y": must be an absolute path on the server, for example /srv/volumes and must not contain a backslash or #`,
			`[subDir]: Invalid value: "../#": must not have a "." or ".." path component and must not contain a backslash or #`,
			`[uid]: Invalid value: "x": ` + id}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			for i := range c.want {
				c.want[i] = "parameters" + c.want[i]
			}
			if _, faults := class(c.parameters...); !slices.Equal(faults, c.want) {
				t.Errorf("got:\n%s\nwant:\n%s", strings.Join(faults, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

// A message that changes with each try makes an event of each try.
func TestFaultsReadTheSameEachTime(t *testing.T) {
	parameters := given("SERVER", "a", "Server", "b", "x", "1", "y", "2", "X", "3", "csi.storage.k8s.io/z", "4", "subDir", "${a}/${b}")
	want := ""
	for range 50 {
		_, errs := ParseClass(parameters, Delete, ServerAndShare)
		if got := Faults(errs); want == "" {
			want = got
		} else if got != want {
			t.Fatalf("once:\n%s\nand once:\n%s", want, got)
		}
	}
}
