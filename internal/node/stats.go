package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"sharevol.dev/sharevol/internal/nfsmount"
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
// in time. When the server does not answer, or has forgotten the volume, the condition is
// abnormal and says so, and the figures are the last that are known, if any are.
// NotFound: no volume is mounted there.
func (s *Server) NodeGetVolumeStats(ctx context.Context, request *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	if err := required("volume_id", request.GetVolumeId(), "volume_path", request.GetVolumePath()); err != nil {
		return nil, err
	}
	space, err := s.measure(ctx, request.GetVolumePath())
	var wrong *ailment
	if err != nil && !errors.As(err, &wrong) {
		return nil, err
	}
	answer := &csi.NodeGetVolumeStatsResponse{Usage: space.usage()}
	answer.ProtoReflect().SetUnknown(condition(wrong))
	return answer, nil
}

// NodeGetVolumeHealth says what is wrong with a published volume; nothing, if its server
// answers. It always returns in time. NotFound: no volume is mounted on the path. Without
// a path nothing is known.
func (s *Server) NodeGetVolumeHealth(ctx context.Context, request *csi.NodeGetVolumeHealthRequest) (*csi.NodeGetVolumeHealthResponse, error) {
	if err := required("volume_id", request.GetVolumeId()); err != nil {
		return nil, err
	}
	health := &csi.VolumeHealth{VolumeId: request.GetVolumeId()}
	if path := request.GetVolumePublishPath(); path != "" {
		_, err := s.measure(ctx, path)
		var wrong *ailment
		if err != nil && !errors.As(err, &wrong) {
			return nil, err
		}
		if wrong != nil {
			health.HealthStatuses = []*csi.VolumeHealth_VolumeHealthEntry{{
				Status: csi.VolumeHealthErrorType_INACCESSIBLE, Reason: wrong.reason, Message: wrong.message,
			}}
		}
	}
	return &csi.NodeGetVolumeHealthResponse{VolumeHealth: health}, nil
}

// ailment is what is wrong with a volume.
type ailment struct{ reason, message string }

func (a *ailment) Error() string { return a.message }

// measure returns the space of the volume at path. With an ailment as its error, the
// space is what was last known; other errors have a gRPC code.
func (s *Server) measure(ctx context.Context, path string) (Space, error) {
	target, err := s.folder.locate(path)
	if errors.Is(err, errPath) || errors.Is(err, fs.ErrNotExist) {
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
	if len(layers) == 0 || !layers[len(layers)-1].NFS() {
		return Space{}, status.Errorf(codes.NotFound, "no volume is mounted on %s", target)
	}
	top := layers[len(layers)-1]
	space, err := s.prober.ask(ctx, top.Device, target)
	switch {
	case err == nil:
		return space, s.stillThere(target, top)
	case errors.Is(err, errNoAnswer):
		return space, &ailment{"NoAnswer", fmt.Sprintf("%s: %v", top.Source, err)}
	case errors.Is(err, errNoTurn), ctx.Err() != nil:
		return space, retryable(err)
	case errors.Is(err, unix.ESTALE):
		return space, &ailment{"Stale", fmt.Sprintf("%s: the server does not know this directory any more; a pod that is made anew gets a new mount: %v", top.Source, err)}
	}
	return space, &ailment{"Failed", fmt.Sprintf("%s: %v", top.Source, err)}
}

// stillThere returns an error unless top is what is on target. If it is not, what was
// asked may have been the node's own disk.
func (s *Server) stillThere(target string, top nfsmount.Layer) error {
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

// condition returns the field volume_condition as it goes over the wire.
func condition(wrong *ailment) []byte {
	abnormal, message := uint64(0), "the server answers"
	if wrong != nil {
		abnormal, message = 1, wrong.message
	}
	var c []byte
	c = protowire.AppendTag(c, conditionAbnormal, protowire.VarintType)
	c = protowire.AppendVarint(c, abnormal)
	c = protowire.AppendTag(c, conditionMessage, protowire.BytesType)
	c = protowire.AppendString(c, message)
	return protowire.AppendBytes(protowire.AppendTag(nil, conditionField, protowire.BytesType), c)
}

// required takes names and values, and names every value that is empty.
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
