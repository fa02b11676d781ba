package node

import (
	"context"
	"errors"
	"io/fs"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// NodeUnpublishVolume unmounts whatever is on the target path and removes the
// path, which must then be an empty directory (FailedPrecondition if it is not). A
// missing target is success. It returns within 30 s, whatever the server does.
func (s *Server) NodeUnpublishVolume(ctx context.Context, request *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, unpublishTimeout)
	defer cancel()
	var faults []string
	if request.GetVolumeId() == "" {
		faults = append(faults, "volume_id: required")
	}
	target, err := s.folder.locate(request.GetTargetPath())
	if errors.Is(err, errPath) {
		faults = append(faults, "target_"+err.Error())
	}
	switch {
	case len(faults) > 0:
		return nil, status.Error(codes.InvalidArgument, strings.Join(faults, "; "))
	case errors.Is(err, fs.ErrNotExist):
		return &csi.NodeUnpublishVolumeResponse{}, nil
	case err != nil:
		return nil, status.Error(codes.Unavailable, oneLine(err))
	}
	release, err := s.occupy(target)
	if err != nil {
		return nil, err
	}
	defer release()

	if err := s.mounter.Unmount(ctx, target); err != nil {
		return nil, retryable(err)
	}
	s.prober.forget(target)
	if err := removeTarget(target); err != nil {
		return nil, err
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}
