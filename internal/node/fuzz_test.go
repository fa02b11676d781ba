package node_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sharevol.dev/sharevol/internal/mount"
	"sharevol.dev/sharevol/internal/mount/fakemount"
	"sharevol.dev/sharevol/internal/node"
)

// guard is a Mounter for which everything exists on every server, and that lets nothing
// outside of kubelet's folder pass.
type guard struct {
	*fakemount.Mounter
	t      *testing.T
	folder string // with its links resolved
}

func (g *guard) check(call, target string) {
	parent, err := filepath.EvalSymlinks(filepath.Dir(target))
	if err != nil || !strings.HasPrefix(target, g.folder+"/") || filepath.Join(parent, filepath.Base(target)) != target {
		g.t.Errorf("%s outside of kubelet's folder: %q (%v)", call, target, err)
	}
}

func (g *guard) Mount(ctx context.Context, spec mount.Spec, target string) error {
	g.check("mount", target)
	source, options := spec.Source, spec.Options
	server, path, found := strings.Cut(source, ":/")
	if !found || server == "" || strings.HasPrefix(source, "-") || slices.Contains(strings.Split(path, "/"), "..") {
		g.t.Errorf("mount of %q", source)
	}
	for _, option := range strings.Split(strings.Join(options, ","), ",") {
		key, _, _ := strings.Cut(strings.ToLower(option), "=")
		if slices.Contains([]string{"addr", "mountaddr", "mounthost", "bind", "rbind", "move", "remount", "suid", "dev", "loop"}, key) {
			g.t.Errorf("mount with the option %q", option)
		}
	}
	g.Export(source, g.folder)
	return g.Mounter.Mount(ctx, spec, target)
}

func (g *guard) Unmount(ctx context.Context, target string) error {
	g.check("unmount", target)
	return g.Mounter.Unmount(ctx, target)
}

func (g *guard) Layers(target string) ([]mount.Layer, error) {
	g.check("layers", target)
	return g.Mounter.Layers(target)
}

func (g *guard) Pending(target string) error {
	g.check("pending", target)
	return g.Mounter.Pending(target)
}

// others is the volume of another driver, below kubelet's folder.
const others = "pods/p/volumes/kubernetes.io~csi/others-v/mount"

// fuzzFolder makes a kubelet's folder with links that lead out of it, beside a folder
// that has to stay as it is.
func fuzzFolder(f *testing.F) (folder, outside string) {
	dir, err := filepath.EvalSymlinks(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	folder, outside = filepath.Join(dir, "kubelet"), filepath.Join(dir, "outside")
	const volumes = "volumes/kubernetes.io~csi"
	for _, path := range []string{
		filepath.Join(folder, "pods/p", volumes, "v"), filepath.Join(folder, others, "data"),
		filepath.Join(outside, "x", "y"), filepath.Join(outside, volumes, "v"),
	} {
		if err := os.MkdirAll(path, 0o700); err != nil {
			f.Fatal(err)
		}
	}
	for link, to := range map[string]string{
		"out": outside, "up": "..", "loop": "loop", "pods/in": "p", "pods/root": "/", "pods/out": outside, "pods/loop": "loop",
		filepath.Join("pods/p", volumes, "out"): outside, filepath.Join("pods/p", volumes, "others"): filepath.Join(folder, others),
	} {
		if err := os.Symlink(to, filepath.Join(folder, link)); err != nil {
			f.Fatal(err)
		}
	}
	return folder, outside
}

// FuzzRequests: whatever a request says, no call panics, nothing outside of kubelet's
// folder is mounted on, unmounted, made or removed, and the answer has a gRPC code that
// kubelet knows what to do with. What was published is so once, and can be unpublished.
func FuzzRequests(f *testing.F) {
	const target = "/pods/p/volumes/kubernetes.io~csi/v/mount"
	f.Add(target, true, "id", "nfs", "/srv", "pvc-1", "nfsvers=4.2", "hard,timeo=100", int32(5), true)
	f.Add("/pods/p/../../../outside/x", true, "id", "nfs", "/srv", "../pvc-1", "suid", "addr=x", int32(6), false)
	// Links, and what is inside of another volume or is one.
	for _, path := range []string{
		"pods/out/volumes/kubernetes.io~csi/v/mount", "pods/p/volumes/kubernetes.io~csi/out/mount", "pods/in/volumes/kubernetes.io~csi/v/mount",
		"pods/root/volumes/kubernetes.io~csi/v/mount", "pods/loop/volumes/kubernetes.io~csi/v/mount", others, others + "/data", others + "/new",
		"pods/p/volumes/kubernetes.io~csi/others/data", "pods/p/volumes/kubernetes.io~csi/v/../../../../../../outside/x", "pods",
	} {
		f.Add("/"+path, true, "id", "nfs", "/srv", "pvc-1", "", "", int32(5), false)
	}
	f.Add("/etc/passwd", false, "", "-o", "srv", `..\x`, "", "", int32(0), false)
	folder, outside := fuzzFolder(f)
	f.Fuzz(func(t *testing.T, path string, below bool, id, server, share, subDir, flags, secret string, mode int32, readOnly bool) {
		g := &guard{Mounter: &fakemount.Mounter{}, t: t, folder: folder}
		for _, path := range []string{"pods", others} {
			g.Put(filepath.Join(folder, path), mount.Layer{Source: "/dev/rbd0", FSType: "ext4", Device: "252:0"})
		}
		s := node.New(g, node.Options{KubeletDir: folder, TrialDir: folder, Statfs: func(string) (node.Space, error) { return node.Space{}, nil }})
		if below {
			path = folder + path
		}
		request := &csi.NodePublishVolumeRequest{
			VolumeId: id, TargetPath: path, Readonly: readOnly,
			VolumeContext: map[string]string{"server": server, "share": share, "subDir": subDir},
			Secrets:       map[string]string{"mountOptions": secret},
			VolumeCapability: &csi.VolumeCapability{
				AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{MountFlags: []string{flags}}},
				AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_Mode(mode)},
			},
		}
		_, first := s.NodePublishVolume(ctx, request)
		_, second := s.NodePublishVolume(ctx, request)
		if status.Code(first) != status.Code(second) {
			t.Errorf("published: %v; again: %v", first, second)
		}
		if calls := g.Calls(); first == nil && len(calls) != 1 || first != nil && len(calls) > 0 {
			t.Errorf("%v: mounted %v", first, calls)
		}
		_, stats := s.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: id, VolumePath: path})
		_, health := s.NodeGetVolumeHealth(ctx, &csi.NodeGetVolumeHealthRequest{VolumeId: id, VolumePublishPath: path})
		_, unpublish := s.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: id, TargetPath: path})
		if first == nil && unpublish != nil {
			t.Errorf("published, and then: %v", unpublish)
		}
		for name, err := range map[string]error{"publish": first, "stats": stats, "health": health, "unpublish": unpublish} {
			if code := status.Code(err); code == codes.Unknown || code == codes.Internal {
				t.Errorf("%s: %v", name, err)
			}
		}
		if mounts, _ := g.Mounts(); len(mounts) != 2 || mounts[0].FSType != "ext4" || mounts[1].FSType != "ext4" {
			t.Errorf("mounted afterwards: %v", mounts)
		}
		if _, err := os.Stat(filepath.Join(folder, others, "data")); err != nil {
			t.Errorf("in another driver's volume: %v", err)
		}
		if entries, err := os.ReadDir(filepath.Join(outside, "x")); err != nil || len(entries) != 1 {
			t.Errorf("outside: %v, %v", entries, err)
		}
	})
}
