package node

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sharevol.dev/sharevol/internal/nfsmount"
)

// checkSingle refuses a volume that may have one target on a node (access mode
// ReadWriteOncePod) while it is mounted on another, by mountinfo. shown is how its own mount
// looks, if there is one: the kernel shows a mount under another name of its server
// where that came first, but then they are of one file system.
func (s *Server) checkSingle(p publish, shown nfsmount.Layer) error {
	if !p.single {
		return nil
	}
	volumes, err := s.folder.volumes()
	if err != nil {
		return status.Error(codes.Unavailable, oneLine(err))
	}
	asked := nfsmount.Layer{Source: p.source, FSType: "nfs"}
	for _, other := range volumes {
		same := other.Source == p.source || shown.Device != "" && other.Device == shown.Device
		if other.Target != p.target && same && other.Path() == asked.Path() {
			return status.Errorf(codes.FailedPrecondition, "%s is for one pod at a time (ReadWriteOncePod), and mounted on %s", p.source, other.Target)
		}
	}
	return nil
}

// stillSingle is checkSingle for a volume that has just been mounted. It unmounts it
// again if that may not stay.
func (s *Server) stillSingle(ctx context.Context, p publish) error {
	if !p.single {
		return nil
	}
	layers, err := s.look(p.target)
	if err != nil {
		return err
	}
	if len(layers) == 0 {
		return status.Errorf(codes.Unavailable, "the mount on %s is gone", p.target)
	}
	refusal := s.checkSingle(p, layers[len(layers)-1])
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
