package provision

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sharevol.dev/sharevol/internal/cluster"
	"sharevol.dev/sharevol/internal/share"
	"sharevol.dev/sharevol/internal/share/helper"
	"sharevol.dev/sharevol/internal/volume"
)

// TestMain is also the helper process of the real share.Manager.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == helper.Argument {
		if err := helper.Main(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// ground is a directory with a share in it, on the real share.Manager: another
// volume with data, data that was there before, and precious things outside.
type ground struct {
	fixture
	dir, share string
	victim     *v1.PersistentVolume
}

func newGround(t *testing.T) ground {
	t.Helper()
	g := ground{dir: t.TempDir()}
	g.share = filepath.Join(g.dir, "share")
	for _, file := range []string{"outside/precious", "share/data/precious", "share/archived-pvc-1x/precious", "share/pvc-10/precious", "precious"} {
		check(t, os.MkdirAll(filepath.Join(g.dir, filepath.Dir(file)), 0o755))
		check(t, os.WriteFile(filepath.Join(g.dir, file), []byte(file), 0o600))
	}
	check(t, os.Symlink("../outside", filepath.Join(g.share, "link")))
	objects := append(mountSecrets(), &v1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "root"}, Data: map[string][]byte{"mountOptions": []byte("addr=198.51.100.1")},
	})
	premounted := map[volume.Share]string{}
	for _, s := range []volume.Share{{Server: "nfs.example.com", Path: "/srv/volumes"}, {Server: "nfs.example.com", Path: "/"}, {Server: "2001:db8::1", Path: "/srv/volumes"}} {
		premounted[s] = g.share
	}
	shares := share.NewManager(share.Options{Premounted: premounted})
	t.Cleanup(func() { check(t, shares.Close(ctx)) })
	g.fixture = fixtureOf(t, clusterID, shares, nil, cluster.Names{Driver: driver, DefaultOnDelete: volume.Delete}, objects...)
	var err error
	g.victim, err = g.Provision(ctx, requestFor("victim"))
	check(t, err)
	check(t, os.WriteFile(filepath.Join(g.share, "pvc-victim", "precious"), []byte("victim"), 0o600))
	return g
}

// snapshot is all that is there but .sharevol: names, modes and contents.
func (g ground) snapshot(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	check(t, filepath.WalkDir(g.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.Name() == ".sharevol" {
			return fs.SkipDir
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		content := []byte(nil)
		if info.Mode().IsRegular() {
			content, err = os.ReadFile(path)
		}
		fmt.Fprintln(&all, path, info.Mode(), string(content))
		return err
	}))
	return all.String()
}

// try provisions and, if that works, deletes; whatever happens, nothing but the
// volume's own directory may have changed meanwhile, and that is gone in the end.
func (g ground) try(t *testing.T, change func(*Request), plant func(dir string), spoil func(*v1.PersistentVolume)) (provisionErr, deleteErr error) {
	t.Helper()
	options := requestFor("1")
	change(&options)
	pv, err := g.Provision(ctx, options)
	if err != nil {
		return err, nil
	}
	dir := filepath.Join(g.share, pv.Spec.CSI.VolumeAttributes["subDir"])
	if plant != nil {
		plant(dir)
	}
	if spoil == nil {
		return nil, deleteSaved(g.fixture, pv)
	}
	bad := pv.DeepCopy()
	spoil(bad)
	err = deleteSaved(g.fixture, bad)
	return nil, errors.Join(err, deleteSaved(g.fixture, pv))
}

func parameter(pairs ...string) func(*Request) {
	return func(o *Request) {
		for i := 0; i < len(pairs); i += 2 {
			o.Class.Parameters[pairs[i]] = pairs[i+1]
		}
	}
}

// free is a class that takes the claim's annotation as its path, with slashes.
func free(value string) func(*Request) {
	return func(o *Request) {
		parameter("subDir", "${pvc.metadata.annotations['path']}", "subDirAllowSlashes", "true")(o)
		o.Claim.Annotations = map[string]string{"path": value}
	}
}

func secretOf(namespace, name string) func(*Request) {
	return parameter("csi.storage.k8s.io/provisioner-secret-name", name, "csi.storage.k8s.io/provisioner-secret-namespace", namespace)
}

func mountOption(option string) func(*Request) {
	return func(o *Request) { o.Class.MountOptions = []string{option} }
}

// nfs-subdir-external-provisioner #250, #139 and the trailing slash; csi-driver-nfs
// CVE-2026-3864; local-path-provisioner CVE-2025-62878; and what else people try.
func TestHostileClaimsAndClasses(t *testing.T) {
	long := strings.Repeat("l", 253)
	refused := map[string]func(*Request){
		"up": free(".."), "up and up": free("../.."), "up to outside": free("../outside"), "in and out": free("a/../../outside"), "dot": free("."),
		"dot inside": free("a/./b"), "absolute": free("/outside"), "root": free("/"), "empty": free(""), "twice": free("a//b"), "trailing": free("a/"),
		"backslash": free(`..\outside`), "newline": free("a\nb"), "carriage": free("a\rb"), "nul": free("a\x00b"), "escape": free("a\x1b[2Jb"), "tab": free("a\tb"),
		"delete": free("a\x7fb"), "separator": free("a\u2028b"), "invalid": free("a\xffb"), "hash": free("a#b"), "reserved": free(".sharevol"),
		"the id": free(".sharevol/id"), "the trash": free(".sharevol/trash/pvc-victim"), "reserved below": free("a/.sharevol/owners"), "similar": free(".sharevolx"),
		"too long a name": free(strings.Repeat("a", 256)), "too long": free(strings.Repeat("abc/", 400) + "a"),
		"another volume": free("pvc-victim"), "in another volume": free("pvc-victim/x"), "deep in it": free("pvc-victim/a/b/c"), "data": free("data"), "a file": free("data/precious"),
		"in a file": free("data/precious/x"), "a link": free("link"), "through a link": free("link/x"), "through it up": free("link/../x"),
		"literal up":          parameter("subDir", "../${pvc.metadata.name}"),
		"literal reserved":    parameter("subDir", ".sharevol/trash/${pvc.metadata.name}"),
		"unknown variable":    parameter("subDir", "${HOME}"),
		"shell":               parameter("subDir", "${pvc.metadata.name:-x}"),
		"server option":       parameter("server", "-oremount"),
		"server with a path":  parameter("server", "nfs.example.com:/etc"),
		"zone":                parameter("server", "fe80::1%eth0"),
		"brackets":            parameter("server", "[nfs.example.com]"),
		"share up":            parameter("share", "/srv/volumes/../.."),
		"share relative":      parameter("share", "srv/volumes"),
		"share reserved":      parameter("share", "/srv/volumes/.sharevol"),
		"not premounted":      parameter("share", "/etc"),
		"mode":                parameter("mountPermissions", "7777"),
		"uid":                 parameter("uid", "-1"),
		"policy":              parameter("onDelete", "delete\n"),
		"twice, other case":   parameter("ONDELETE", "retain"),
		"addr":                mountOption("addr=198.51.100.1"),
		"comma":               mountOption("hard,mountaddr=198.51.100.1"),
		"remount":             mountOption("remount,suid"),
		"quoted":              mountOption(`"bind"`),
		"mount helper":        mountOption("X-mount.owner=0"),
		"secret elsewhere":    secretOf("../kube-system", "root"),
		"secret by label":     secretOf("kube-system", "${pvc.metadata.labels['secret']}"),
		"secret redirects":    secretOf("kube-system", "root"),
		"secret is not there": secretOf("default", "none"),
		"selector":            func(o *Request) { o.Claim.Spec.Selector = &metav1.LabelSelector{} },
		"data source":         func(o *Request) { o.Claim.Spec.DataSource = &v1.TypedLocalObjectReference{} },
		"volume name":         func(o *Request) { o.Name = "../outside" },
	}
	served := map[string]func(*Request){
		"unicode": free("ü/中文/😀"), "long names": free(long + "/" + long), "spaces": free(" a / b "), "dashes": free("-rf"), "dots": free("...x"), "glob": free("*"), "quote": free(`a"b'c`),
		"template in a value": free("${pvc.metadata.name}"), "similar name": free("pvc-victim2"), "beside the archive": free("archived-pvc-2"),
		"share with slashes": parameter("share", "//srv//volumes//"), "share root": parameter("share", "/"), "IPv6": parameter("server", "[2001:DB8:0::1]"),
		"archive": parameter("onDelete", "archive"),
	}
	if n := len(refused) + len(served); n < 60 {
		t.Fatalf("only %d cases", n)
	}
	g := newGround(t)
	before := g.snapshot(t)
	for name, change := range refused {
		if provisionErr, _ := g.try(t, change, nil, nil); provisionErr == nil {
			t.Errorf("%s: served", name)
		}
		if after := g.snapshot(t); after != before {
			t.Fatalf("%s: it was\n%s\nand is\n%s", name, before, after)
		}
	}
	for name, change := range served {
		if provisionErr, deleteErr := g.try(t, change, nil, nil); provisionErr != nil || deleteErr != nil {
			t.Errorf("%s: %v, %v", name, provisionErr, deleteErr)
		}
		if name == "archive" {
			check(t, os.RemoveAll(filepath.Join(g.share, "archived-pvc-1")))
		}
		if after := g.snapshot(t); after != before {
			t.Fatalf("%s: it was\n%s\nand is\n%s", name, before, after)
		}
	}
}

// What somebody has written into a PersistentVolume, and what pods or people have
// put in the place of a volume's directory.
func TestHostileVolumesAndShares(t *testing.T) {
	attribute := func(name, value string) func(*v1.PersistentVolume) {
		return func(pv *v1.PersistentVolume) { pv.Spec.CSI.VolumeAttributes[name] = value }
	}
	spoilt := map[string]func(*v1.PersistentVolume){
		"up": attribute("subDir", ".."), "outside": attribute("subDir", "../outside"), "backslash": attribute("subDir", `..\outside`), "empty": attribute("subDir", ""),
		"victim": attribute("subDir", "pvc-victim"), "in the victim": attribute("subDir", "pvc-victim/precious"), "data": attribute("subDir", "data"),
		"link": attribute("subDir", "link"), "the folder": attribute("subDir", ".sharevol"), "other share": attribute("share", "/etc"), "other case": attribute("SUBDIR", "pvc-victim"),
		"victim's name": func(pv *v1.PersistentVolume) { pv.Name = "pvc-victim" },
		"path as name":  func(pv *v1.PersistentVolume) { pv.Name = "../../outside" },
		"other id":      func(pv *v1.PersistentVolume) { pv.Annotations[cluster.AnnShareID] = "x" },
		"no id":         func(pv *v1.PersistentVolume) { pv.Annotations = nil },
		"handle": func(pv *v1.PersistentVolume) {
			pv.Spec.CSI.VolumeHandle = "nfs.example.com#srv/volumes#pvc-victim#pvc-victim#"
			pv.Spec.CSI.VolumeAttributes["subDir"] = "pvc-victim"
		},
	}
	g := newGround(t)
	before := g.snapshot(t)
	nothing := func(*Request) {}
	for name, spoil := range spoilt {
		// Where another volume is recorded, nothing of this one is left: no error.
		taken := name == "victim" || name == "victim's name" || name == "handle"
		if _, err := g.try(t, nothing, nil, spoil); (err == nil) != taken {
			t.Errorf("%s: deleted", name)
		}
		if after := g.snapshot(t); after != before {
			t.Fatalf("%s: it was\n%s\nand is\n%s", name, before, after)
		}
	}
	planted := map[string]func(dir string) error{
		"links inside": func(dir string) error {
			return errors.Join(os.Symlink("../pvc-victim", filepath.Join(dir, "a")), os.Symlink("/", filepath.Join(dir, "b")), os.Symlink(g.dir+"/outside", filepath.Join(dir, "c")))
		},
		"a hard link to a victim's file": func(dir string) error {
			return os.Link(filepath.Join(g.share, "pvc-victim", "precious"), filepath.Join(dir, "x"))
		},
		"a folder like ours inside": func(dir string) error { return os.MkdirAll(filepath.Join(dir, "a", ".sharevol", "owners"), 0o755) },
		"names that hurt":           func(dir string) error { return os.MkdirAll(filepath.Join(dir, "-rf *\n..", "..."), 0o755) },
		"a directory of no use":     func(dir string) error { return os.Mkdir(filepath.Join(dir, "closed"), 0) },
	}
	for name, plant := range planted {
		if _, err := g.try(t, nothing, func(dir string) { check(t, plant(dir)) }, nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if after := g.snapshot(t); after != before {
			t.Fatalf("%s: it was\n%s\nand is\n%s", name, before, after)
		}
	}
	// It could be the root of another share, with other volumes in it.
	var ours string
	if _, err := g.try(t, nothing, func(dir string) { ours = filepath.Join(dir, ".sharevol"); check(t, os.Mkdir(ours, 0o755)) }, nil); err == nil {
		t.Error("a folder like ours: deleted")
	}
	check(t, os.Remove(ours))
	check(t, os.Remove(filepath.Dir(ours)))
	replaced := map[string]func(dir string) error{
		"a link to the victim": func(dir string) error { return os.Symlink("pvc-victim", dir) },
		"a link to outside":    func(dir string) error { return os.Symlink(g.dir+"/outside", dir) },
		"a file":               func(dir string) error { return os.WriteFile(dir, nil, 0o600) },
	}
	for name, plant := range replaced {
		var dir string
		if _, err := g.try(t, nothing, func(d string) { dir = d; check(t, os.Remove(d)); check(t, plant(d)) }, nil); err == nil {
			t.Errorf("%s: deleted", name)
		}
		check(t, os.Remove(dir)) // what was planted is still there
		if after := g.snapshot(t); after != before {
			t.Fatalf("%s: it was\n%s\nand is\n%s", name, before, after)
		}
	}
	check(t, deleteSaved(g.fixture, g.victim))
}
