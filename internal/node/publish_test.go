package node_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sharevol.dev/sharevol/internal/mount"
)

func TestPublishAndUnpublishTwice(t *testing.T) {
	f := newFixture(t)
	f.publish(t)
	f.publish(t)
	calls := f.mounter.Calls()
	if len(calls) != 1 || calls[0].Source != source || !slices.Equal(f.optionsOf(t), []string{"nfsvers=4.2", "hard"}) {
		t.Errorf("mounted %+v", calls)
	}
	for range 2 {
		if err := f.unpublish(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(f.target); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("target left: %v", err)
		}
	}
}

func TestReadOnlyComesFromTheRequestAlone(t *testing.T) {
	f := newFixture(t)
	request := f.request()
	request.Readonly = true
	request.VolumeCapability.AccessMode.Mode = csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
	if _, err := f.node.NodePublishVolume(ctx, request); err != nil {
		t.Fatal(err)
	}
	if got := f.optionsOf(t); !slices.Equal(got, []string{"nfsvers=4.2", "hard", "ro"}) {
		t.Errorf("options %v", got)
	}
}

func TestStaticVolumeOfTheShareRoot(t *testing.T) {
	f := newFixture(t)
	f.mounter.Exports["[2001:db8::7]:/srv"] = t.TempDir()
	request := f.request()
	request.VolumeContext = map[string]string{"Server": "2001:db8::7", "SHARE": "/srv/"}
	if _, err := f.node.NodePublishVolume(ctx, request); err != nil {
		t.Fatal(err)
	}
}

// As csi-driver-nfs takes them from a volume that was written by hand.
func TestMountOptionsOfTheAttributes(t *testing.T) {
	f := newFixture(t)
	request := f.request()
	request.VolumeContext["MountOptions"] = "noatime,retrans=3"
	request.Secrets = map[string]string{"mountOptions": "sec=krb5"}
	request.Readonly = true
	if _, err := f.node.NodePublishVolume(ctx, request); err != nil {
		t.Fatal(err)
	}
	if got := f.optionsOf(t); !slices.Equal(got, []string{"sec=krb5", "nfsvers=4.2", "hard", "noatime", "retrans=3", "ro"}) {
		t.Errorf("options %v", got)
	}
	for _, refused := range []string{"hard,addr=192.0.2.1", "bind", "hard,,soft"} {
		f := newFixture(t)
		request := f.request()
		request.VolumeContext["mountOptions"] = refused
		if _, err := f.node.NodePublishVolume(ctx, request); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "volume_context[mountOptions]") {
			t.Errorf("%s: %v", refused, err)
		}
		if calls := f.mounter.Calls(); len(calls) > 0 {
			t.Errorf("mounted %+v", calls)
		}
	}
}

// A volume without a type is NFS; one of a type that this plugin does not serve is not
// mounted as something else.
func TestTypeOfTheAttributes(t *testing.T) {
	f := newFixture(t)
	if err := f.tryPublish(func(r *csi.NodePublishVolumeRequest) { r.VolumeContext["type"] = "smb" }); status.Code(err) != codes.InvalidArgument ||
		!strings.Contains(err.Error(), `volume_context[type]: Unsupported value: "smb": supported values: "nfs"`) {
		t.Errorf("got %v", err)
	}
	if calls := f.mounter.Calls(); len(calls) > 0 {
		t.Errorf("mounted %+v", calls)
	}
	for range 2 { // it is the same mount
		if err := f.tryPublish(func(r *csi.NodePublishVolumeRequest) { r.VolumeContext["Type"] = "nfs" }); err != nil {
			t.Error(err)
		}
		f.publish(t)
	}
	if calls := f.mounter.Calls(); len(calls) != 1 || calls[0].Source != source {
		t.Errorf("mounted %+v", calls)
	}
}

func TestPublishNamesEveryFault(t *testing.T) {
	f := newFixture(t)
	_, err := f.node.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
		TargetPath:    "relative/../path",
		Secrets:       map[string]string{"mountOptions": "hard,addr=192.0.2.1"},
		VolumeContext: map[string]string{"server": "-o", "subDir": "../other"},
		VolumeCapability: &csi.VolumeCapability{
			AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{MountFlags: []string{"suid,bind"}}},
		},
	})
	if status.Code(err) != codes.InvalidArgument {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{"volume_id: required", "target_path", "volume_context[server]", "volume_context[share]", "volume_context[subDir]", `"suid" is refused`, `"bind" is refused`, `"addr" is refused`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
	request := f.request()
	request.VolumeCapability.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
	if _, err := f.node.NodePublishVolume(ctx, request); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "block") {
		t.Errorf("block: %v", err)
	}
	if calls := f.mounter.Calls(); len(calls) > 0 {
		t.Errorf("mounted %v", calls)
	}
}

// After a final code kubelet forgets the mount and never unpublishes it.
func TestNoFinalCodeWhileSomethingIsMounted(t *testing.T) {
	f := newFixture(t)
	f.publish(t)
	badSubDir := func(r *csi.NodePublishVolumeRequest) { r.VolumeContext["subDir"] = "../other" }
	if err := f.tryPublish(badSubDir); status.Code(err) != codes.Unavailable {
		t.Errorf("faults on a mounted target: %v", err)
	}
	err := f.tryPublish(func(r *csi.NodePublishVolumeRequest) { r.VolumeContext["subDir"] = "pvc-2" })
	if status.Code(err) != codes.Unavailable {
		t.Errorf("another volume on the target: %v", err)
	}
	if f.mounted(t, f.target) != 1 || len(f.mounter.Unmounts()) > 0 {
		t.Error("the mount was touched")
	}
}

// Nor while an earlier mount(8), perhaps of a plugin that was killed, may still mount.
func TestNoFinalCodeWhileAnEarlierMountIsAtWork(t *testing.T) {
	f := newFixture(t)
	f.mounter.SetPending(f.target, mount.ErrPending)
	if err := os.WriteFile(f.target, nil, 0o600); err != nil { // which would be final
		t.Fatal(err)
	}
	for name, change := range map[string]func(*csi.NodePublishVolumeRequest){
		"good request": unchanged,
		"bad request":  func(r *csi.NodePublishVolumeRequest) { r.VolumeContext["subDir"] = "../other" },
	} {
		if err := f.tryPublish(change); status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	if calls := f.mounter.Calls(); len(calls) > 0 {
		t.Errorf("mounted %v", calls)
	}
	if err := f.unpublish(); status.Code(err) != codes.Unavailable {
		t.Errorf("unpublish: %v", err)
	}
}

// gRPC codes are what kubelet goes by. Every one of these leaves nothing mounted.
func TestCodesOfFailedMounts(t *testing.T) {
	cases := map[string]struct {
		err  error
		want codes.Code
	}{
		"missing":          {fmt.Errorf("mount: %w", fs.ErrNotExist), codes.NotFound},
		"denied":           {fmt.Errorf("mount: %w", fs.ErrPermission), codes.PermissionDenied},
		"led elsewhere":    {fmt.Errorf("mount: %w", mount.ErrSource), codes.FailedPrecondition},
		"no answer":        {fmt.Errorf("mount: %w", context.DeadlineExceeded), codes.DeadlineExceeded},
		"missing, at last": {fmt.Errorf("mount: %w; %w", fs.ErrNotExist, context.DeadlineExceeded), codes.DeadlineExceeded},
		"pending":          {fmt.Errorf("mount: %w; %w", fs.ErrNotExist, mount.ErrPending), codes.Unavailable},
		"anything else":    {errors.New("mount.nfs: Connection refused"), codes.Unavailable},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.mounter.Fail(source, c.err)
			if err := f.tryPublish(unchanged); status.Code(err) != c.want || !strings.Contains(err.Error(), "mount") {
				t.Errorf("got %v, want %v and mount's own words", err, c.want)
			}
		})
	}
}

// A mount that fails but is there all the same has no final code either.
func TestNoFinalCodeForAFailedMountThatIsThere(t *testing.T) {
	f := newFixture(t)
	f.mounter.Fail(source, fs.ErrNotExist)
	f.mounter.AfterMount = func() { f.mounter.Put(f.target, mount.Layer{Source: source, FSType: "nfs4"}) }
	if err := f.tryPublish(unchanged); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v", err)
	}
}

// csi-driver-nfs #1271, #569: kubelet gives up on a publish after 2 minutes, and what is
// killed then has to be undone; an unpublish has 30 s.
func TestCallsHaveDeadlines(t *testing.T) {
	f := newFixture(t)
	f.publish(t)
	if err := f.unpublish(); err != nil {
		t.Fatal(err)
	}
	if left := time.Until(f.mounter.Calls()[0].Deadline); left <= 0 || left > 75*time.Second {
		t.Errorf("mount has %s", left)
	}
	if left := time.Until(f.mounter.Unmounts()[0].Deadline); left <= 0 || left > 25*time.Second {
		t.Errorf("unmount has %s", left)
	}
}

// azurefile-csi-driver #3211: publish is repeated on a live mount; csi-driver-nfs #112:
// after a restart of the plugin, too. The mount stays as it is.
func TestRepeatedPublishLeavesALiveMountAlone(t *testing.T) {
	f := newFixture(t)
	f.publish(t)
	for range 2 {
		f.publish(t)
		f.restart(t)
		f.publish(t)
	}
	if calls, unmounts := f.mounter.Calls(), f.mounter.Unmounts(); len(calls) != 1 || len(unmounts) > 0 {
		t.Errorf("mounted %v, unmounted %v", calls, unmounts)
	}
	if asked := f.statfs.Calls(); len(asked) != 4 {
		t.Errorf("asked %v whether it lives", asked)
	}
}

// Whatever is wrong with a mount whose directory the server still may know: it is left
// alone, and publish says so in time.
func TestPublishOnAMountThatDoesNotAnswer(t *testing.T) {
	cases := map[string]struct {
		breaks func(*fixture)
		want   codes.Code
	}{
		"no answer": {func(f *fixture) { f.statfs.Kill(f.target) }, codes.DeadlineExceeded},
		"error":     {func(f *fixture) { f.statfs.Fail(f.target, unix.EIO) }, codes.Unavailable},
		"denied":    {func(f *fixture) { f.statfs.Fail(f.target, unix.EACCES) }, codes.OK}, // somebody answers
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			t.Cleanup(func() { f.statfs.Revive(f.target) })
			f.publish(t)
			c.breaks(f)
			started := time.Now()
			if err := f.tryPublish(unchanged); status.Code(err) != c.want {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if took := time.Since(started); took > 5*time.Second {
				t.Errorf("it took %s", took)
			}
			if calls, unmounts := f.mounter.Calls(), f.mounter.Unmounts(); len(calls) != 1 || len(unmounts) > 0 {
				t.Errorf("mounted %v, unmounted %v", calls, unmounts)
			}
		})
	}
}

func TestMissingDirectoryIsNotFound(t *testing.T) {
	f := newFixture(t)
	err := f.tryPublish(func(r *csi.NodePublishVolumeRequest) { r.VolumeContext["subDir"] = "pvc-2" })
	if status.Code(err) != codes.NotFound {
		t.Errorf("got %v", err)
	}
}

// A request may have a megabyte of faults in it, and more.
func TestHugeFaultsHaveShortMessages(t *testing.T) {
	f := newFixture(t)
	huge := strings.Repeat("x ", 500_000)
	for name, change := range map[string]func(*csi.NodePublishVolumeRequest){
		"share":  func(r *csi.NodePublishVolumeRequest) { r.VolumeContext["share"] = "/" + huge },
		"server": func(r *csi.NodePublishVolumeRequest) { r.VolumeContext["server"] = huge },
		"option": func(r *csi.NodePublishVolumeRequest) { r.VolumeCapability.GetMount().MountFlags = []string{huge} },
		"target": func(r *csi.NodePublishVolumeRequest) { r.TargetPath = "/" + huge },
		"commas": func(r *csi.NodePublishVolumeRequest) {
			r.VolumeCapability.GetMount().MountFlags = []string{strings.Repeat(",", 500_000)}
		},
		"secret": func(r *csi.NodePublishVolumeRequest) {
			r.Secrets = map[string]string{"mountOptions": strings.Repeat(",", 500_000)}
		},
	} {
		err := f.tryPublish(change)
		if n := len(status.Convert(err).Message()); n > 8<<10 || status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: code %s, message of %d bytes (%.80s)", name, status.Code(err), n, status.Convert(err).Message())
		}
	}
}
