package node

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sharevol.dev/sharevol/internal/mount"
)

// checkSingleWriter refuses a volume that may have one target on a node (access mode
// ReadWriteOncePod) while it is mounted on another, by mountinfo. shown is how its own mount
// looks, if there is one: the kernel shows a mount under another name of its server
// where that came first, but then they are of one file system.
func (s *Server) checkSingleWriter(p publish, shown mount.Layer) error {
	if !p.singleWriter {
		return nil
	}
	volumes, err := s.kubelet.volumes()
	if err != nil {
		return status.Error(codes.Unavailable, oneLine(err))
	}
	for _, other := range volumes {
		same := other.Source == p.spec.Source || shown.Device != "" && other.Device == shown.Device
		if other.Target != p.target && same && p.spec.Shows(other.Layer) {
			return status.Errorf(codes.FailedPrecondition, "ReadWriteOncePod volume %s is already mounted at %s", p.spec.Source, other.Target)
		}
	}
	return nil
}

// recheckSingleWriter is checkSingleWriter for a volume that has just been mounted. It
// unmounts it again if that may not stay.
func (s *Server) recheckSingleWriter(ctx context.Context, p publish) error {
	if !p.singleWriter {
		return nil
	}
	layers, err := s.mountedOn(p.target)
	if err != nil {
		return err
	}
	if len(layers) == 0 {
		return status.Errorf(codes.Unavailable, "%s was unmounted from %s meanwhile", p.spec.Source, p.target)
	}
	refusal := s.checkSingleWriter(p, layers[len(layers)-1])
	if refusal == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if err := s.mounter.Unmount(ctx, p.target); err != nil {
		return retryable(fmt.Errorf("%s: %w", status.Convert(refusal).Message(), err))
	}
	return refusal
}
