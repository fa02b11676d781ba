package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sharevol.dev/sharevol/internal/nfsmount"
)

// NodePublishVolume mounts the volume directory on the target path, which it
// makes. It is idempotent: the volume already there is success and untouched, if its
// server answers. One that is stale is replaced once a trial mount of the same source
// has succeeded elsewhere; until then it stays, and the answer is Unavailable.
//
// InvalidArgument lists every fault of the request. NotFound and PermissionDenied
// are what the server said. FailedPrecondition: the target is no empty directory (what
// is in it is left alone), or the server led the mount elsewhere, or the volume is for
// one target of the node and mounted on another. These come only when nothing is mounted
// on the target, nor will be: after a final code kubelet forgets the mount.
// DeadlineExceeded, Aborted and Unavailable: to be repeated.
func (s *Server) NodePublishVolume(ctx context.Context, request *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	p, faults := parsePublish(request)
	var err error
	p.target, err = s.folder.locate(request.GetTargetPath())
	switch {
	case errors.Is(err, errPath):
		// Nothing of ours is there: such a path has never been accepted.
		faults = append(faults, "target_"+err.Error())
		return nil, status.Error(codes.InvalidArgument, strings.Join(faults, "; "))
	case errors.Is(err, fs.ErrNotExist):
		return nil, status.Errorf(codes.FailedPrecondition, "the parent of the target path, which kubelet makes: %v", err)
	case err != nil:
		return nil, status.Error(codes.Unavailable, oneLine(err))
	}
	keys := []string{p.target}
	if p.single && len(faults) == 0 {
		keys = append(keys, p.source)
	}
	release, err := s.occupy(keys...)
	if err != nil {
		return nil, err
	}
	defer release()
	if len(faults) > 0 {
		// Not final where an earlier version of ours has mounted the volume.
		return nil, s.refuse(p.target, codes.InvalidArgument, strings.Join(faults, "; "))
	}
	if err := s.publish(ctx, p); err != nil {
		failed := status.Convert(err)
		return nil, status.Error(failed.Code(), p.hide(failed.Message()))
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func (s *Server) publish(ctx context.Context, p publish) error {
	layers, err := s.look(p.target)
	if err != nil {
		return err
	}
	if len(layers) == 0 {
		return s.mount(ctx, p)
	}
	top := layers[len(layers)-1]
	if !top.Shows(p.source) {
		return status.Errorf(codes.Unavailable, "%s is mounted on the target path %s, not %s: left alone", top.Source, p.target, p.source)
	}
	_, err = s.prober.ask(ctx, top.Device, p.target)
	switch {
	case lives(err):
		return nil
	case errors.Is(err, unix.ESTALE):
		return s.replace(ctx, p, layers)
	}
	return retryable(fmt.Errorf("%s is mounted on the target path %s already, but its server does not answer as it should; the mount is left alone: %w", top.Source, p.target, err))
}

// lives reports whether a server that was asked about a mount knows it, by its answer.
func lives(err error) bool {
	return err == nil || errors.Is(err, fs.ErrPermission) // whoever refuses is there
}

// mount mounts a volume on a target on which nothing is mounted, as look has seen.
func (s *Server) mount(ctx context.Context, p publish) error {
	if err := s.checkSingle(p, nfsmount.Layer{}); err != nil {
		return err
	}
	if err := prepareTarget(p.target); err != nil {
		return err
	}
	if err := s.mounter.Mount(ctx, p.source, p.target, p.options); err != nil {
		return s.mountFailed(p.target, err)
	}
	return s.stillSingle(ctx, p)
}

// mountFailed chooses the code for a mount that failed. A final one needs
// certainty that nothing is mounted.
func (s *Server) mountFailed(target string, err error) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nfsmount.ErrUnended):
		return retryable(err)
	case errors.Is(err, fs.ErrNotExist):
		return s.refuse(target, codes.NotFound, oneLine(err))
	case errors.Is(err, fs.ErrPermission):
		return s.refuse(target, codes.PermissionDenied, oneLine(err))
	case errors.Is(err, nfsmount.ErrSource):
		return s.refuse(target, codes.FailedPrecondition, oneLine(err))
	}
	return retryable(err)
}
