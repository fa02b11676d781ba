package node_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"sharevol.dev/sharevol/internal/node"
)

// stats returns a volume's usage and its condition, as a kubelet before 1.37 reads it.
func (f *fixture) stats(t *testing.T, path string) (usage []*csi.VolumeUsage, abnormal bool, message string) {
	t.Helper()
	answer, err := f.node.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: "x", VolumePath: path})
	if err != nil {
		t.Fatal(err)
	}
	field, kind, n := protowire.ConsumeTag(answer.ProtoReflect().GetUnknown())
	if field != 2 || kind != protowire.BytesType {
		t.Fatalf("no condition: field %d of type %d", field, kind)
	}
	condition, _ := protowire.ConsumeBytes(answer.ProtoReflect().GetUnknown()[n:])
	_, _, n = protowire.ConsumeTag(condition)
	flag, m := protowire.ConsumeVarint(condition[n:])
	condition = condition[n+m:]
	_, _, n = protowire.ConsumeTag(condition)
	message, _ = protowire.ConsumeString(condition[n:])
	return answer.GetUsage(), flag == 1, message
}

// health returns what is wrong with a volume, "" for nothing.
func (f *fixture) health(t *testing.T, path string) string {
	t.Helper()
	answer, err := f.node.NodeGetVolumeHealth(ctx, &csi.NodeGetVolumeHealthRequest{VolumeId: "x", VolumePublishPath: path})
	if err != nil {
		t.Fatal(err)
	}
	entries := answer.GetVolumeHealth().GetHealthStatuses()
	if len(entries) == 0 {
		return ""
	}
	if entries[0].GetStatus() != csi.VolumeHealthErrorType_INACCESSIBLE || entries[0].GetMessage() == "" {
		t.Errorf("%v", entries)
	}
	return entries[0].GetReason()
}

func TestCapabilities(t *testing.T) {
	f := newFixture(t)
	answer, err := f.node.NodeGetCapabilities(ctx, &csi.NodeGetCapabilitiesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var got []csi.NodeServiceCapability_RPC_Type
	for _, capability := range answer.GetCapabilities() {
		got = append(got, capability.GetRpc().GetType())
	}
	want := []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_GET_VOLUME_STATS, 4, // VOLUME_CONDITION of CSI before 1.13
		csi.NodeServiceCapability_RPC_GET_VOLUME_HEALTH, csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestStats(t *testing.T) {
	f := newFixture(t)
	f.publish(t)
	usage, abnormal, message := f.stats(t, f.target)
	if len(usage) != 2 || abnormal || message == "" || f.health(t, f.target) != "" {
		t.Fatalf("%v, %v, %q", usage, abnormal, message)
	}
	bytes, inodes := usage[0], usage[1]
	if bytes.Unit != csi.VolumeUsage_BYTES || bytes.Total != 1000 || bytes.Used != 900 || bytes.Available != 50 {
		t.Errorf("%v", bytes)
	}
	if inodes.Unit != csi.VolumeUsage_INODES || inodes.Total != 100 || inodes.Used != 90 || inodes.Available != 10 {
		t.Errorf("%v", inodes)
	}
	f.statfs.Set(f.target, node.Space{Bytes: 1, BytesAvailable: 1}) // a server that counts no inodes
	if usage, _, _ := f.stats(t, f.target); len(usage) != 1 {
		t.Errorf("%v", usage)
	}
}

func TestStatsValidate(t *testing.T) {
	f := newFixture(t)
	_, noID := f.node.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumePath: f.target})
	_, noPath := f.node.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: "x"})
	_, noHealthID := f.node.NodeGetVolumeHealth(ctx, &csi.NodeGetVolumeHealthRequest{VolumePublishPath: f.target})
	for name, err := range map[string]error{"id": noID, "path": noPath, "health without id": noHealthID} {
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, unmounted := f.node.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: "x", VolumePath: f.target})
	_, unhealthy := f.node.NodeGetVolumeHealth(ctx, &csi.NodeGetVolumeHealthRequest{VolumeId: "x", VolumePublishPath: f.target})
	for name, err := range map[string]error{"stats": unmounted, "health": unhealthy} {
		if status.Code(err) != codes.NotFound {
			t.Errorf("%s of what is not mounted: %v", name, err)
		}
	}
	if asked := f.statfs.Calls(); len(asked) > 0 {
		t.Errorf("asked %v", asked)
	}
	if f.health(t, "") != "" {
		t.Error("without a path nothing is known")
	}
}

// ceph-csi #4200: statistics of a dead mount hang. Here they come, with the last figures
// and the reason, and however often they are asked for: one call waits for the server.
func TestStatsOfADeadMount(t *testing.T) {
	f := newFixture(t)
	f.publish(t)
	f.stats(t, f.target)
	f.statfs.Kill(f.target)
	var calls sync.WaitGroup
	for range 50 {
		calls.Go(func() {
			if usage, abnormal, message := f.stats(t, f.target); len(usage) != 2 || usage[0].Total != 1000 || !abnormal || message == "" {
				t.Errorf("%v, %v, %q", usage, abnormal, message)
			}
			if reason := f.health(t, f.target); reason != "NoAnswer" {
				t.Errorf("reason %q", reason)
			}
		})
	}
	calls.Wait()
	if n := f.statfs.Blocked(); n != 1 {
		t.Errorf("%d calls wait for the server", n)
	}
	started := time.Now()
	f.stats(t, f.target)
	if took := time.Since(started); took >= statfsTimeout {
		t.Errorf("what is known to be dead is waited for: %s", took)
	}
	f.statfs.Revive(f.target)
	eventually(t, "it stays dead", func() bool { _, abnormal, _ := f.stats(t, f.target); return !abnormal })
	if f.health(t, f.target) != "" {
		t.Error("not healthy")
	}
}

// Two volumes of one export hang together; another server's do not.
func TestStatsOfOneFileSystem(t *testing.T) {
	f := newFixture(t)
	f.mounter.Export("other:/srv", t.TempDir())
	f.mounter.Devices = map[string]string{"other:/srv": "0:77"}
	second, other := f.newTarget(t, "second", "pvc-1"), f.newTarget(t, "other", "other")
	f.publish(t)
	if err := f.tryPublish(to(second)); err != nil {
		t.Fatal(err)
	}
	err := f.tryPublish(func(r *csi.NodePublishVolumeRequest) {
		r.TargetPath, r.VolumeContext = other, map[string]string{"server": "other", "share": "/srv"}
	})
	if err != nil {
		t.Fatal(err)
	}
	f.statfs.Kill(f.target)
	defer f.statfs.Revive(f.target)
	if usage, abnormal, _ := f.stats(t, f.target); !abnormal || len(usage) > 0 { // nothing is known
		t.Errorf("%v, %v", usage, abnormal)
	}
	asked := len(f.statfs.Calls())
	if _, abnormal, _ := f.stats(t, second); !abnormal {
		t.Error("the second volume of a dead server is fine")
	}
	if err := f.tryPublish(to(second)); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("publish on a dead mount: %v", err)
	}
	if now := len(f.statfs.Calls()); now != asked {
		t.Errorf("%d more calls to a dead server", now-asked)
	}
	if _, abnormal, _ := f.stats(t, other); abnormal {
		t.Error("another server's volume is abnormal")
	}
	// A volume that goes takes its last figures along, also those that are yet to come.
	if err := f.unpublish(); err != nil {
		t.Fatal(err)
	}
}

// A slow server's volumes are asked one after the other, and each gets its own answer.
func TestStatsOfManyVolumesAtOnce(t *testing.T) {
	f := newFixture(t)
	f.patience = time.Minute
	f.restart(t)
	f.publish(t)
	var calls sync.WaitGroup
	f.statfs.Kill(f.target)
	calls.Go(func() {
		if usage, _, _ := f.stats(t, f.target); usage[0].Total != 1000 {
			t.Errorf("the first: %v", usage)
		}
	})
	eventually(t, "the first is not asked for", func() bool { return f.statfs.Blocked() == 1 })
	defer calls.Wait()
	defer f.statfs.Revive(f.target)
	for i := range 20 {
		target := f.newTarget(t, "pod", string(rune('a'+i)))
		if err := f.tryPublish(to(target)); err != nil {
			t.Fatal(err)
		}
		f.statfs.Set(target, node.Space{Bytes: int64(i + 1)})
		calls.Go(func() {
			if usage, abnormal, message := f.stats(t, target); abnormal || usage[0].Total != int64(i+1) {
				t.Errorf("volume %d: %v, %s", i, usage, message)
			}
		})
	}
	time.Sleep(statfsTimeout / 10) // so that they wait for the first
}

// A server that has forgotten the directory is as bad as none.
func TestStatsOfAStaleMount(t *testing.T) {
	f := stale(t)
	if usage, abnormal, _ := f.stats(t, f.target); !abnormal || len(usage) > 0 || f.health(t, f.target) != "Stale" {
		t.Errorf("%v, %v", usage, abnormal)
	}
	f.statfs.Fail(f.target, unix.EIO)
	if _, abnormal, _ := f.stats(t, f.target); !abnormal || f.health(t, f.target) != "Failed" {
		t.Error("an error is no condition")
	}
}

// A caller that goes away is not waited for.
func TestStatsEndWithTheirCaller(t *testing.T) {
	f := newFixture(t)
	f.publish(t)
	f.statfs.Kill(f.target)
	defer f.statfs.Revive(f.target)
	ctx, cancel := context.WithTimeout(ctx, statfsTimeout/10)
	defer cancel()
	_, err := f.server.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: "x", VolumePath: f.target})
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
}

// statfs(2) itself, on a disk.
func TestStatfs(t *testing.T) {
	f := newFixture(t)
	f.publish(t)
	f.server = node.New(f.mounter, node.Options{KubeletDir: f.kubelet})
	answer, err := f.server.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: "x", VolumePath: f.target})
	if err != nil || len(answer.GetUsage()) == 0 {
		t.Fatalf("%v, %v", answer, err)
	}
	for _, usage := range answer.GetUsage() {
		if usage.Total <= 0 || usage.Used < 0 || usage.Available < 0 || usage.Used > usage.Total || usage.Available > usage.Total {
			t.Errorf("%v", usage)
		}
	}
}
