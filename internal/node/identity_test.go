package node_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestIdentity(t *testing.T) {
	f := newFixture(t)
	info, err := f.identity.GetPluginInfo(ctx, &csi.GetPluginInfoRequest{})
	if err != nil || info.Name != "csi.sharevol.dev" || info.VendorVersion != "v1" {
		t.Errorf("%v, %v", info, err)
	}
	if probe, err := f.identity.Probe(ctx, &csi.ProbeRequest{}); err != nil || !probe.Ready.GetValue() {
		t.Errorf("%v, %v", probe, err)
	}
	if info, err := f.node.NodeGetInfo(ctx, &csi.NodeGetInfoRequest{}); err != nil || info.NodeId != "node1" {
		t.Errorf("%v, %v", info, err)
	}
}

func TestProbeFailsWhereMountingCannotWork(t *testing.T) {
	f := newFixture(t)
	f.mounter.CheckErr = errors.New("mount.nfs: not found")
	if _, err := f.identity.Probe(ctx, &csi.ProbeRequest{}); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "mount.nfs") {
		t.Errorf("got %v", err)
	}
}
