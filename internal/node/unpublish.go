package node

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sharevol.dev/sharevol/internal/fs"
	"sharevol.dev/sharevol/internal/mount"
)

// NodeUnpublishVolume unmounts all that is on the target path and removes the
// path, which must then be an empty directory. FailedPrecondition: it is not, or what
// is mounted there is of no type of ours; both stay as they are. A missing target is
// success. It returns within 30 s, whatever the server does.
func (s *Server) NodeUnpublishVolume(ctx context.Context, request *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, unpublishTimeout)
	defer cancel()
	var faults []string
	if request.GetVolumeId() == "" {
		faults = append(faults, "volume_id: required")
	}
	target, err := s.kubelet.locate(request.GetTargetPath())
	if errors.Is(err, errPath) {
		faults = append(faults, "target_"+err.Error())
	}
	switch {
	case len(faults) > 0:
		return nil, status.Error(codes.InvalidArgument, strings.Join(faults, "; "))
	case errors.Is(err, os.ErrNotExist):
		return &csi.NodeUnpublishVolumeResponse{}, nil
	case err != nil:
		return nil, status.Error(codes.Unavailable, oneLine(err))
	}
	unlock, err := s.lockTargets(target)
	if err != nil {
		return nil, err
	}
	defer unlock()

	if err := s.checkOurs(target); err != nil {
		return nil, err
	}
	if err := s.mounter.Unmount(ctx, target); err != nil {
		return nil, retryable(err)
	}
	s.prober.forget(target)
	if err := removeTarget(target); err != nil {
		return nil, err
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

// checkOurs refuses a target on which something is mounted, and nothing of a type of ours.
func (s *Server) checkOurs(target string) error {
	layers, err := s.mounter.Layers(target)
	if err != nil {
		return status.Error(codes.Unavailable, oneLine(err))
	}
	ours := func(l mount.Layer) bool { _, ours := fs.Types.Of(l); return ours }
	if len(layers) > 0 && !slices.ContainsFunc(layers, ours) {
		return status.Errorf(codes.FailedPrecondition, "%s (%s) is mounted on %s: it is not a volume of this driver, and stays mounted", layers[0].Source, layers[0].FSType, target)
	}
	return nil
}
