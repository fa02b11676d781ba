package node

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Identity is the CSI identity service.
type Identity struct {
	csi.UnimplementedIdentityServer
	name, version string
	mounter       Mounter
}

var _ csi.IdentityServer = (*Identity)(nil)

// NewIdentity returns the identity service of the driver name.
func NewIdentity(name, version string, mounter Mounter) *Identity {
	return &Identity{name: name, version: version, mounter: mounter}
}

// GetPluginInfo returns the driver's name and version.
func (i *Identity) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: i.name, VendorVersion: i.version}, nil
}

// GetPluginCapabilities returns none: there is no CSI controller service, and
// volumes are on every node.
func (i *Identity) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{}, nil
}

// Probe is ready when this node has all that mounting takes: the programs, and a
// readable mountinfo. FailedPrecondition lists what is missing.
func (i *Identity) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	if err := i.mounter.Check(); err != nil {
		return nil, status.Errorf(codes.FailedPrecondition, "this node can't mount volumes: %v", err)
	}
	return &csi.ProbeResponse{Ready: wrapperspb.Bool(true)}, nil
}
