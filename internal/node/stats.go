package node

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"sharevol.dev/sharevol/internal/fs"
	"sharevol.dev/sharevol/internal/mount"
)

// CSI 1.13 has taken the volume condition out of its specification, for
// NodeGetVolumeHealth; kubelet up to 1.36 knows only the former. Both are served: these
// are its numbers on the wire, which the specification keeps reserved.
const (
	volumeCondition = csi.NodeServiceCapability_RPC_Type(4) // VOLUME_CONDITION

	conditionField    = protowire.Number(2) // NodeGetVolumeStatsResponse.volume_condition
	conditionAbnormal = protowire.Number(1) // VolumeCondition.abnormal
	conditionMessage  = protowire.Number(2) // VolumeCondition.message
)

// NodeGetVolumeStats returns the space of a published volume, in bytes and inodes: that
// of the file system on the server, or of the quota where it has one. It always returns
// in time. When the server does not answer, or no longer knows the volume, the condition is
// abnormal with the reason, and the figures are the last known ones, if there are any.
// NotFound: no volume is mounted there.
func (s *Server) NodeGetVolumeStats(ctx context.Context, request *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	if err := required("volume_id", request.GetVolumeId(), "volume_path", request.GetVolumePath()); err != nil {
		return nil, err
	}
	space, err := s.measure(ctx, request.GetVolumePath())
	var abnormal *condition
	if err != nil && !errors.As(err, &abnormal) {
		return nil, err
	}
	answer := &csi.NodeGetVolumeStatsResponse{Usage: space.usage()}
	answer.ProtoReflect().SetUnknown(abnormal.marshal())
	return answer, nil
}

// NodeGetVolumeHealth returns the abnormal condition of a published volume; none, if its
// server answers. It always returns in time. NotFound: no volume is mounted on the path.
// Without a path nothing is known.
func (s *Server) NodeGetVolumeHealth(ctx context.Context, request *csi.NodeGetVolumeHealthRequest) (*csi.NodeGetVolumeHealthResponse, error) {
	if err := required("volume_id", request.GetVolumeId()); err != nil {
		return nil, err
	}
	health := &csi.VolumeHealth{VolumeId: request.GetVolumeId()}
	if path := request.GetVolumePublishPath(); path != "" {
		_, err := s.measure(ctx, path)
		var abnormal *condition
		if err != nil && !errors.As(err, &abnormal) {
			return nil, err
		}
		if abnormal != nil {
			health.HealthStatuses = []*csi.VolumeHealth_VolumeHealthEntry{{
				Status: csi.VolumeHealthErrorType_INACCESSIBLE, Reason: abnormal.reason, Message: abnormal.message,
			}}
		}
	}
	return &csi.NodeGetVolumeHealthResponse{VolumeHealth: health}, nil
}

// condition is an abnormal condition of a volume; nil is the normal one.
type condition struct{ reason, message string }

func (c *condition) Error() string { return c.message }

// measure returns the space of the volume at path. With a condition as its error, the
// space is what was last known; other errors have a gRPC code.
func (s *Server) measure(ctx context.Context, path string) (Space, error) {
	target, err := s.kubelet.locate(path)
	if errors.Is(err, errPath) || errors.Is(err, os.ErrNotExist) {
		// Not InvalidArgument: CSI wants this of any path without the volume.
		return Space{}, status.Errorf(codes.NotFound, "no volume is mounted on %q: %v", path, err)
	}
	if err != nil {
		return Space{}, status.Error(codes.Unavailable, oneLine(err))
	}
	layers, err := s.mounter.Layers(target)
	if err != nil {
		return Space{}, status.Error(codes.Unavailable, oneLine(err))
	}
	if len(layers) == 0 {
		return Space{}, status.Errorf(codes.NotFound, "no volume is mounted on %s", target)
	}
	top := layers[len(layers)-1]
	of, ours := fs.Types.Of(top)
	if !ours {
		return Space{}, status.Errorf(codes.NotFound, "%s (%s) is mounted on %s: it is not a volume of this driver", top.Source, top.FSType, target)
	}
	space, err := s.prober.ask(ctx, top.Device, target)
	switch {
	case err == nil:
		return space, s.checkStillMounted(target, top)
	case errors.Is(err, errNoAnswer):
		return space, &condition{"NoAnswer", fmt.Sprintf("%s: %v", top.Source, err)}
	case errors.Is(err, errBusy), ctx.Err() != nil:
		return space, retryable(err)
	case errors.Is(err, of.Stale):
		return space, &condition{"Stale", fmt.Sprintf("%s: the server no longer knows this directory; delete the pod, so that its successor gets a new mount: %v", top.Source, err)}
	}
	return space, &condition{"Failed", fmt.Sprintf("%s: %v", top.Source, err)}
}

// checkStillMounted returns an error unless top is what is mounted on target. If it is not,
// the space may be that of the node's own disk.
func (s *Server) checkStillMounted(target string, top mount.Layer) error {
	layers, err := s.mounter.Layers(target)
	switch {
	case err != nil:
		return status.Error(codes.Unavailable, oneLine(err))
	case len(layers) > 0 && layers[len(layers)-1] == top:
		return nil
	}
	s.prober.forget(target)
	return status.Errorf(codes.NotFound, "the volume on %s was unmounted meanwhile", target)
}

func (s Space) usage() []*csi.VolumeUsage {
	var usage []*csi.VolumeUsage
	if s.Bytes > 0 {
		usage = append(usage, &csi.VolumeUsage{Unit: csi.VolumeUsage_BYTES, Total: s.Bytes, Used: s.BytesUsed, Available: s.BytesAvailable})
	}
	if s.Inodes > 0 {
		usage = append(usage, &csi.VolumeUsage{Unit: csi.VolumeUsage_INODES, Total: s.Inodes, Used: s.InodesUsed, Available: s.InodesAvailable})
	}
	return usage
}

// marshal returns the field volume_condition as it goes over the wire.
func (c *condition) marshal() []byte {
	abnormal, message := uint64(0), "the server answers"
	if c != nil {
		abnormal, message = 1, c.message
	}
	var field []byte
	field = protowire.AppendTag(field, conditionAbnormal, protowire.VarintType)
	field = protowire.AppendVarint(field, abnormal)
	field = protowire.AppendTag(field, conditionMessage, protowire.BytesType)
	field = protowire.AppendString(field, message)
	return protowire.AppendBytes(protowire.AppendTag(nil, conditionField, protowire.BytesType), field)
}

// required takes names and values. Its error lists every name whose value is empty.
func required(pairs ...string) error {
	var faults []error
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			faults = append(faults, errors.New(pairs[i]+": required"))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return status.Error(codes.InvalidArgument, oneLine(err))
	}
	return nil
}
