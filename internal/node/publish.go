package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sharevol.dev/sharevol/internal/mount"
)

// NodePublishVolume mounts the volume directory on the target path, which it
// makes. It is idempotent: the volume already there is success and untouched, if its
// server answers. One that is stale is replaced once a trial mount of the same source
// has succeeded elsewhere; until then it stays, and the answer is Unavailable.
//
// InvalidArgument lists every fault of the request. NotFound and PermissionDenied
// are the server's answers. FailedPrecondition: the target is not an empty directory (what
// is in it stays), or the server led the mount elsewhere, or the volume is for
// one target of the node and mounted on another. These come only when nothing is mounted
// on the target, nor will be: after a final code kubelet forgets the mount.
// DeadlineExceeded, Aborted and Unavailable: to be repeated.
func (s *Server) NodePublishVolume(ctx context.Context, request *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	p, faults := parsePublish(request)
	var err error
	p.target, err = s.kubelet.locate(request.GetTargetPath())
	switch {
	case errors.Is(err, errPath):
		// Nothing of ours is there: such a path has never been accepted.
		faults = append(faults, "target_"+err.Error())
		return nil, status.Error(codes.InvalidArgument, strings.Join(faults, "; "))
	case errors.Is(err, os.ErrNotExist):
		return nil, status.Errorf(codes.FailedPrecondition, "the parent directory of the target path, which kubelet makes, is missing: %v", err)
	case err != nil:
		return nil, status.Error(codes.Unavailable, oneLine(err))
	}
	keys := []string{p.target}
	if p.singleWriter && len(faults) == 0 {
		keys = append(keys, p.spec.Source)
	}
	unlock, err := s.lockTargets(keys...)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if len(faults) > 0 {
		// Not final where an earlier version of ours has mounted the volume.
		return nil, s.refuse(p.target, codes.InvalidArgument, strings.Join(faults, "; "))
	}
	if err := s.publish(ctx, p); err != nil {
		failed := status.Convert(err)
		return nil, status.Error(failed.Code(), p.redact(failed.Message()))
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func (s *Server) publish(ctx context.Context, p publish) error {
	layers, err := s.mountedOn(p.target)
	if err != nil {
		return err
	}
	if len(layers) == 0 {
		return s.mount(ctx, p)
	}
	top := layers[len(layers)-1]
	if !p.spec.Shows(top) {
		return status.Errorf(codes.Unavailable, "%s is mounted on the target path %s, not %s; existing mount kept", top.Source, p.target, p.spec.Source)
	}
	_, err = s.prober.ask(ctx, top.Device, p.target)
	switch {
	case responds(err):
		return nil
	case errors.Is(err, p.stale):
		return s.replace(ctx, p, layers)
	}
	return p.notResponding(err)
}

// responds reports whether the server of a mount knows it, by the error of a call.
func responds(err error) bool {
	return err == nil || errors.Is(err, os.ErrPermission) // a refusal is an answer
}

// notResponding is the error for a mount that is there, and whose server may know it still.
func (p publish) notResponding(err error) error {
	return retryable(fmt.Errorf("%s is already mounted on %s, but its server is not responding; existing mount kept: %w", p.spec.Source, p.target, err))
}

// mount mounts a volume on a target on which nothing is mounted, by mountedOn.
func (s *Server) mount(ctx context.Context, p publish) error {
	if err := s.checkSingleWriter(p, mount.Layer{}); err != nil {
		return err
	}
	if err := prepareTarget(p.target); err != nil {
		return err
	}
	if err := s.mounter.Mount(ctx, p.spec, p.target); err != nil {
		return s.mountFailed(p.target, err)
	}
	return s.recheckSingleWriter(ctx, p)
}

// mountFailed chooses the code for a mount that failed. A final one needs
// certainty that nothing is mounted.
func (s *Server) mountFailed(target string, err error) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, mount.ErrPending):
		return retryable(err)
	case errors.Is(err, os.ErrNotExist):
		return s.refuse(target, codes.NotFound, oneLine(err))
	case errors.Is(err, os.ErrPermission):
		return s.refuse(target, codes.PermissionDenied, oneLine(err))
	case errors.Is(err, mount.ErrSource):
		return s.refuse(target, codes.FailedPrecondition, oneLine(err))
	}
	return retryable(err)
}
