package volume

import (
	"strings"
	"testing"
)

const oldName = "cluster.local/nfs-subdir-external-provisioner"

var old = Adoption{Name: oldName, Share: Share{Server: "nfs.example.com", Path: "/srv/k8s"}}

func TestParseAdoption(t *testing.T) {
	for value, want := range map[string]Adoption{
		oldName + "=nfs.example.com:/srv/k8s":   old,
		"fuseim.pri/ifs=192.0.2.1:/":            {"fuseim.pri/ifs", Share{Server: "192.0.2.1", Path: "/"}},
		"nfs=[2001:db8::1]:/srv/":               {"nfs", Share{Server: "2001:db8::1", Path: "/srv"}},
		"k8s-sigs.io/nfs-subdir=nfs:/srv/a=b/c": {"k8s-sigs.io/nfs-subdir", Share{Server: "nfs", Path: "/srv/a=b/c"}},
	} {
		if got, err := ParseAdoption(value); err != nil || got != want {
			t.Errorf("%s: %+v, %v", value, got, err)
		}
	}
	for _, value := range []string{"", "nfs", "nfs=", "=nfs:/srv", "a/b/c=nfs:/srv", "a=nfs", "a=nfs:srv", "a=:/srv", "a=-o:/srv", "a=nfs:/srv/../x", `a=nfs:/s\v`, "a b=nfs:/srv", "../x=nfs:/srv", "a/=nfs:/srv"} {
		if got, err := ParseAdoption(value); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %+v, %v", value, got, err)
		}
	}
	if got := old.Lock(); got != "cluster.local-nfs-subdir-external-provisioner" {
		t.Error(got)
	}
}

// As nfs-subdir-external-provisioner reads its classes: names and values in this
// letter case, and archive when nothing says otherwise.
func TestAdoptedPolicy(t *testing.T) {
	for want, all := range map[OnDelete][]map[string]string{
		Delete:  {{"onDelete": "delete"}, {"archiveOnDelete": "false"}, {"archiveOnDelete": "0"}, {"onDelete": "delete", "archiveOnDelete": "true"}, {"onDelete": "", "archiveOnDelete": "F"}},
		Retain:  {{"onDelete": "retain"}, {"onDelete": "retain", "archiveOnDelete": "false"}},
		Archive: {nil, {}, {"archiveOnDelete": "true"}, {"onDelete": "Delete"}, {"ondelete": "delete"}, {"onDelete": "archive"}, {"onDelete": "remove"}, {"archiveondelete": "false"}},
	} {
		for _, parameters := range all {
			if got, err := old.Policy(parameters); err != nil || got != want {
				t.Errorf("%v: %v, %v; want %v", parameters, got, err, want)
			}
		}
	}
	for _, parameters := range []map[string]string{{"archiveOnDelete": "no"}, {"archiveOnDelete": ""}, {"onDelete": "shred", "archiveOnDelete": "no"}} {
		if got, err := old.Policy(parameters); err == nil || got != Retain {
			t.Errorf("%v: %v, %v", parameters, got, err)
		}
	}
}

func TestAdoptedClasses(t *testing.T) {
	claim := Claim{
		Namespace: "team", Name: "data", Volume: "pvc-1", Labels: map[string]string{"app": "web", "empty": ""},
		Annotations: map[string]string{"nfs.io/storage-path": "a/b", "up": "../..", "abs": "/etc", "root": "/", "back": `..\x`, "hash": "a#b", "own": ".sharevol"},
	}
	long := claim
	long.Name = strings.Repeat("x", 253)
	for pattern, want := range map[string]string{
		"": "team-data-pvc-1", "${.PVC.namespace}/${.PVC.name}": "team/data", "/${.PVC.namespace}//${.PVC.name}/": "team/data",
		"${.PVC.namespace}/${.PVC.annotations.nfs.io/storage-path}": "team/a/b", "x-${.PVC.labels.app}": "x-web", "fixed": "fixed", "a${.PVC.labels.empty}b": "ab",
	} {
		parameters := map[string]string{"pathPattern": pattern, "server": "ignored", "whatever": "x"}
		class, errs := old.ParseClass(parameters)
		rendered, more := class.Render(claim)
		if len(errs)+len(more) > 0 || string(rendered.SubDir) != want || class.Share != old.Share || class.OnDelete != Archive || class.Mode != 0o777 || class.UID != -1 {
			t.Errorf("%q: %q, %+v, %v, %v", pattern, rendered.SubDir, class, errs, more)
		}
		if got := strings.Join(class.Ignored, " "); got != "server whatever" {
			t.Errorf("ignored %q", got)
		}
	}
	// nfs-subdir #250 and what else could lead out of the share or to nothing.
	for _, pattern := range []string{
		"${.PVC.annotations.up}", "${.PVC.namespace}/${.PVC.annotations.up}", "${.PVC.annotations.abs}", "${.PVC.annotations.root}", "${.PVC.annotations.back}", "${.PVC.annotations.hash}",
		"${.PVC.annotations.own}", "${.PVC.annotations.none}", "${.PVC.labels.empty}", "${.PVC.namespace}/${.PVC.labels.none}", "${.PVC.other}", "..", "../x", "/", "//", ".", "a/../b", "${.PVC.name",
	} {
		class, errs := old.ParseClass(map[string]string{"pathPattern": pattern})
		rendered, more := class.Render(claim)
		if len(errs)+len(more) == 0 {
			t.Errorf("%q renders %q", pattern, rendered.SubDir)
		}
	}
	class, errs := old.ParseClass(nil)
	if rendered, more := class.Render(long); len(errs) > 0 || len(more) == 0 {
		t.Errorf("a name that no file system takes: %q", rendered.SubDir)
	}
	if _, errs := old.ParseClass(map[string]string{"archiveOnDelete": "maybe"}); len(errs) != 1 {
		t.Errorf("faults %v", errs)
	}
}

// A volume's directory is below the adopted share, or left alone.
func TestAdoptedDirectory(t *testing.T) {
	root := Adoption{Name: "a", Share: Share{Server: "nfs", Path: "/"}}
	for _, c := range []struct {
		a            Adoption
		server, path string
		want         SubDir
	}{
		{old, "nfs.example.com", "/srv/k8s/team-data-pvc-1", "team-data-pvc-1"},
		{old, "NFS.example.com.", "/srv/k8s/a/b/c", "a/b/c"},
		{old, "nfs.example.com", "/srv//k8s//a/", "a"},
		{root, "nfs", "/a", "a"},
	} {
		d, err := c.a.Directory(c.server, c.path)
		if err != nil || d.SubDir != c.want || d.Share != c.a.Share {
			t.Errorf("%+v: %+v, %v", c, d, err)
		}
	}
	// nfs-subdir #139, and volumes that a stranger has annotated.
	for _, c := range []struct {
		a            Adoption
		server, path string
	}{
		{old, "other.example.com", "/srv/k8s/a"}, {old, "", "/srv/k8s/a"}, {old, "nfs.example.com", ""}, {old, "nfs.example.com", "/"}, {old, "nfs.example.com", "/srv"},
		{old, "nfs.example.com", "/srv/k8s"}, {old, "nfs.example.com", "/srv/k8s/"}, {old, "nfs.example.com", "/srv/k8s//"}, {old, "nfs.example.com", "/srv/k8s2/a"},
		{old, "nfs.example.com", "/srv/k8s/.."}, {old, "nfs.example.com", "/srv/k8s/../k8s/a"}, {old, "nfs.example.com", "/srv/k8s/./a"}, {old, "nfs.example.com", "srv/k8s/a"},
		{old, "nfs.example.com", `/srv/k8s/..\a`}, {old, "nfs.example.com", "/srv/k8s/a#b"}, {old, "nfs.example.com", "/srv/k8s/.sharevol"}, {old, "nfs.example.com", "/srv/k8s/.sharevol/owners"},
		{old, "nfs.example.com", "/other/a"}, {old, "nfs.example.com", "/srv/k8s/a\x00"}, {root, "nfs", "/"},
	} {
		if d, err := c.a.Directory(c.server, c.path); err == nil {
			t.Errorf("%+v: %+v", c, d)
		}
	}
}
