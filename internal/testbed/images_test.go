package testbed

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// what an image may weigh, in MiB; a provisioner image's program is not counted
const (
	maxNodeImage         = 45
	maxProvisionerExtras = 20
)

func TestImages(t *testing.T) {
	h, ctx, version := newImageHost(t)
	tars, err := h.Images(ctx, version)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := h.Images(ctx, version); err != nil || !slices.Equal(again, tars) {
		t.Errorf("second call: %v, %v; want %v", again, err, tars)
	}
	for i, program := range []string{"node", "provisioner"} {
		t.Run(program, func(t *testing.T) {
			image := unpackImage(t, tars[i])
			checkFiles(t, image.root, program, runtime.GOARCH)
			checkConfig(t, image, program, version)
			checkPrograms(t, image.root, program, version)
			checkSize(t, tars[i], image.root, program)
		})
	}
}

// TestImageOtherArchitecture builds what can't run here, and so can only be looked at.
func TestImageOtherArchitecture(t *testing.T) {
	arch := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	h, ctx, version := newImageHost(t)
	for _, program := range []string{"node", "provisioner"} {
		tar, err := h.image(ctx, program, version, arch)
		if err != nil {
			t.Fatal(err)
		}
		image := unpackImage(t, tar)
		checkFiles(t, image.root, program, arch)
		if image.config.Architecture != arch {
			t.Errorf("the image of %s is for %q, want %q", program, image.config.Architecture, arch)
		}
	}
}

// TestDockerfilesShareStage keeps the stage of Debian's files the same in both Dockerfiles, as they say.
func TestDockerfilesShareStage(t *testing.T) {
	root, err := repositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	var stages []string
	for _, name := range []string{"Dockerfile.node", "Dockerfile.provisioner"} {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, found := strings.Cut(string(data), " AS nfs\n")
		stage, _, end := strings.Cut(rest, "\nFROM ")
		if !found || !end {
			t.Fatalf("%s has no stage nfs", name)
		}
		stages = append(stages, stage)
	}
	if stages[0] != stages[1] {
		t.Error("the stage nfs is not the same in both Dockerfiles")
	}
}

func newImageHost(t *testing.T) (h *Host, ctx context.Context, version string) {
	t.Helper()
	h, err := NewHost(NewProgress(os.Stderr))
	if err != nil {
		t.Fatal(err)
	}
	if version, err = h.Version(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
	t.Cleanup(cancel)
	return h, ctx, version
}

// unpackedImage is an image as a container sees it.
type unpackedImage struct {
	root   string
	config struct {
		Architecture string
		Config       struct {
			Entrypoint []string
			User       string
			Labels     map[string]string
		}
	}
}

func unpackImage(t *testing.T, tar string) unpackedImage {
	t.Helper()
	archive := t.TempDir()
	image := unpackedImage{root: t.TempDir()}
	mustRun(t, exec.Command("tar", "-x", "-C", archive, "-f", tar))
	var manifest []struct {
		Config string
		Layers []string
	}
	mustDecode(t, filepath.Join(archive, "manifest.json"), &manifest)
	mustDecode(t, filepath.Join(archive, manifest[0].Config), &image.config)
	for _, layer := range manifest[0].Layers {
		mustRun(t, exec.Command("tar", "-xp", "-C", image.root, "-f", filepath.Join(archive, layer)))
	}
	return image
}

// checkFiles looks for what must and what must not be in an image.
func checkFiles(t *testing.T, root, program, arch string) {
	t.Helper()
	var executables, packages []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if info.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
			t.Errorf("%s is set-uid or set-gid", rel)
		}
		if info.Mode()&0o111 != 0 && !strings.HasPrefix(rel, "usr/lib/") {
			executables = append(executables, rel)
		}
		if dir, name := filepath.Split(rel); dir == "var/lib/dpkg/status.d/" {
			packages = append(packages, name)
		}
		checkELF(t, root, path, arch)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"sharevol-" + program, "usr/bin/mount", "usr/bin/umount", "usr/sbin/mount.nfs"}
	if !slices.Equal(executables, want) { // so there is no shell either
		t.Errorf("programs in the image: %q, want %q", executables, want)
	}
	must := []string{"etc/netconfig", "etc/nsswitch.conf", "sbin/mount.nfs4", "sbin/umount.nfs", "sbin/umount.nfs4", "usr/share/doc/sharevol/copyright"}
	for _, name := range packages {
		must = append(must, "usr/share/doc/"+name+"/copyright")
	}
	for _, file := range must {
		if !exists(filepath.Join(root, file)) {
			t.Errorf("%s is missing", file)
		}
	}
	if len(packages) < 10 {
		t.Errorf("records of Debian packages: %q, want one for each that a file comes from", packages)
	}
}

// checkELF looks for the loader and the libraries that the program or library at path needs.
func checkELF(t *testing.T, root, path, arch string) {
	t.Helper()
	file, err := elf.Open(path)
	if err != nil {
		return // no ELF file
	}
	defer file.Close()
	machine := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch]
	if file.Machine != machine {
		t.Errorf("%s is for %s, want %s", path, file.Machine, machine)
	}
	needed, err := file.ImportedLibraries()
	if err != nil {
		t.Errorf("%s: %v", path, err)
	}
	folder := map[string]string{"amd64": "lib/x86_64-linux-gnu", "arm64": "lib/aarch64-linux-gnu"}[arch]
	for _, library := range needed {
		if !exists(filepath.Join(root, folder, library)) {
			t.Errorf("%s needs %s, which is not in the image", path, library)
		}
	}
	for _, segment := range file.Progs {
		if segment.Type != elf.PT_INTERP {
			continue
		}
		name := make([]byte, segment.Filesz-1) // without the final NUL
		if _, err := segment.ReadAt(name, 0); err != nil {
			t.Errorf("%s: read the loader's name: %v", path, err)
		}
		loader := filepath.Join(root, string(name))
		if target, err := os.Readlink(loader); err == nil && filepath.IsAbs(target) {
			loader = filepath.Join(root, target)
		}
		if !exists(loader) {
			t.Errorf("%s is loaded by %s, which is not in the image", path, name)
		}
	}
}

func checkConfig(t *testing.T, image unpackedImage, program, version string) {
	t.Helper()
	config := image.config.Config
	if image.config.Architecture != runtime.GOARCH {
		t.Errorf("the image is for %q, want %q", image.config.Architecture, runtime.GOARCH)
	}
	if want := []string{"/sharevol-" + program}; !slices.Equal(config.Entrypoint, want) {
		t.Errorf("entry point %q, want %q", config.Entrypoint, want)
	}
	if config.User != "0:0" {
		t.Errorf("user %q, want 0:0", config.User)
	}
	for name, want := range map[string]string{
		"title": "sharevol-" + program, "version": version, "licenses": "Apache-2.0", "description": "", "source": "", "url": "",
	} {
		got, found := config.Labels["org.opencontainers.image."+name]
		if !found || got == "" || want != "" && got != want {
			t.Errorf("label %s is %q, want %q", name, got, want)
		}
	}
}

// checkPrograms runs the programs of an image in it.
func checkPrograms(t *testing.T, root, program, version string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(root, "etc/hosts"), []byte("192.0.2.7 nas.example\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"/sharevol-" + program, "--version"}, version},
		{[]string{"/bin/mount", "--version"}, "util-linux"},
		{[]string{"/bin/umount", "--version"}, "util-linux"},
		{[]string{"/sbin/mount.nfs", "-V"}, "nfs-utils"},
		// a mount that stops short of the system call: names are resolved, options are negotiated
		{[]string{"/sbin/mount.nfs4", "nas.example:/share", "/etc", "-f", "-v", "-o", "vers=4.2,clientaddr=192.0.2.8"}, "addr=192.0.2.7"},
	} {
		cmd := command(t.Context(), c.args[0], c.args[1:]...)
		cmd.Dir = "/"
		cmd.SysProcAttr.Chroot = root
		if uid := os.Geteuid(); uid != 0 {
			cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
		}
		out, err := cmd.CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte(c.want)) {
			t.Errorf("%q: %v, output %q; want %q in it", c.args, err, out, c.want)
		}
	}
}

func checkSize(t *testing.T, tar, root, program string) {
	t.Helper()
	const mib = 1 << 20
	image, binary := fileSize(t, tar), fileSize(t, filepath.Join(root, "sharevol-"+program))
	t.Logf("image %.1f MiB, of which the program %.1f MiB", float64(image)/mib, float64(binary)/mib)
	if program == "node" && image > maxNodeImage*mib || program == "provisioner" && image > binary+maxProvisionerExtras*mib {
		t.Error("the image is too big")
	}
}

func fileSize(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func mustDecode(t *testing.T, path string, into any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		t.Fatalf("decode %s: %v", path, err)
	}
}

func mustRun(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s", cmd.Args, err, out)
	}
}
