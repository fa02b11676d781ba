// Package node is the CSI node service: it mounts volume directories on pods'
// target paths and unmounts them.
package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sharevol.dev/sharevol/internal/nfsmount"
)

// Mounter mounts NFS exports; see nfsmount.Mounter for what is promised.
type Mounter interface {
	Mount(ctx context.Context, source, target string, options []string) error
	Unmount(ctx context.Context, target string) error
	Layers(target string) ([]nfsmount.Layer, error)
	Check() error
}

// Server is the node service. Its methods may be called concurrently; of two
// calls for one target path the second gets Aborted while the first runs, and
// kubelet repeats it.
type Server struct {
	csi.UnimplementedNodeServer
	nodeID  string
	mounter Mounter

	mu   sync.Mutex
	busy map[string]bool // target paths that a call works on
}

var _ csi.NodeServer = (*Server)(nil)

// New returns the node service of the node nodeID.
func New(nodeID string, mounter Mounter) *Server {
	return &Server{nodeID: nodeID, mounter: mounter, busy: map[string]bool{}}
}

// NodeGetInfo returns the node's id. Volumes have no topology and no limit.
func (s *Server) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: s.nodeID}, nil
}

// NodeGetCapabilities returns none: there is nothing to stage.
func (s *Server) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	return &csi.NodeGetCapabilitiesResponse{}, nil
}

// NodePublishVolume mounts the volume directory on the target path, which it
// makes. It is idempotent: the volume already there is success and untouched.
//
// InvalidArgument lists every fault of the request. NotFound and PermissionDenied
// are what the server said, and come only when nothing is mounted on the target:
// after a final code kubelet forgets the mount. FailedPrecondition: the target is
// no empty directory (what is in it is left alone), or the server led the mount
// elsewhere. DeadlineExceeded, Aborted and Unavailable: to be repeated.
func (s *Server) NodePublishVolume(ctx context.Context, request *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	p, err := parsePublish(request)
	if err != nil {
		return nil, status.Error(s.refusalCode(request.GetTargetPath()), err.Error())
	}
	release, err := s.occupy(p.target)
	if err != nil {
		return nil, err
	}
	defer release()

	layers, err := s.mounter.Layers(p.target)
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	if len(layers) > 0 {
		if top := layers[len(layers)-1]; !top.Shows(p.source) {
			return nil, status.Errorf(codes.Unavailable, "%s is mounted on the target path %s, not %s: left alone", top.Source, p.target, p.source)
		}
		return &csi.NodePublishVolumeResponse{}, nil
	}
	if err := prepareTarget(p.target); err != nil {
		return nil, err
	}
	if err := s.mounter.Mount(ctx, p.source, p.target, p.options); err != nil {
		return nil, s.mountFailed(p.target, err)
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

// refusalCode is the code for a request with faults. InvalidArgument is final:
// where an earlier version of ours has mounted the volume, kubelet must not forget it.
func (s *Server) refusalCode(target string) codes.Code {
	if checkTarget(target) == nil {
		if layers, err := s.mounter.Layers(target); err != nil || len(layers) > 0 {
			return codes.Unavailable
		}
	}
	return codes.InvalidArgument
}

// mountFailed chooses the code for a mount that failed. A final one needs
// certainty that nothing is mounted.
func (s *Server) mountFailed(target string, err error) error {
	code := codes.Unavailable
	layers, layersErr := s.mounter.Layers(target)
	switch {
	case layersErr != nil || len(layers) > 0:
		err = errors.Join(err, layersErr)
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	case errors.Is(err, fs.ErrNotExist):
		code = codes.NotFound
	case errors.Is(err, fs.ErrPermission):
		code = codes.PermissionDenied
	case errors.Is(err, nfsmount.ErrSource):
		code = codes.FailedPrecondition
	}
	return status.Error(code, err.Error())
}

// prepareTarget makes the target directory. kubelet has made its parents.
func prepareTarget(target string) error {
	if err := os.MkdirAll(target, 0o750); err != nil {
		return status.Errorf(codes.FailedPrecondition, "make the target path: %v", err)
	}
	// Nothing is mounted here, so that these look at the node's own disk.
	info, err := os.Lstat(target)
	if err != nil {
		return status.Errorf(codes.Internal, "look at the target path: %v", err)
	}
	if !info.IsDir() {
		return status.Errorf(codes.FailedPrecondition, "the target path %s is not a directory: left alone", target)
	}
	return checkEmpty(target)
}

// checkEmpty refuses a directory with something in it, which would be hidden
// below a mount: something wrote to the node's disk while nothing was mounted.
func checkEmpty(target string) error {
	entries, err := os.ReadDir(target)
	if err != nil {
		return status.Errorf(codes.Internal, "look into the target path: %v", err)
	}
	if len(entries) > 0 {
		return status.Errorf(codes.FailedPrecondition, "the target path %s is on the node's own disk and holds %d files, for example %q: left alone, move them away",
			target, len(entries), entries[0].Name())
	}
	return nil
}

// NodeUnpublishVolume unmounts whatever is on the target path and removes the
// path, which must then be an empty directory. A missing target is success.
func (s *Server) NodeUnpublishVolume(ctx context.Context, request *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	target := request.GetTargetPath()
	var faults []error
	if request.GetVolumeId() == "" {
		faults = append(faults, errors.New("volume_id: required"))
	}
	if err := checkTarget(target); err != nil {
		faults = append(faults, err)
	}
	if len(faults) > 0 {
		return nil, status.Error(codes.InvalidArgument, joinFaults(faults))
	}
	release, err := s.occupy(target)
	if err != nil {
		return nil, err
	}
	defer release()

	if err := s.mounter.Unmount(ctx, target); err != nil {
		code := codes.Unavailable
		if errors.Is(err, context.DeadlineExceeded) {
			code = codes.DeadlineExceeded
		}
		return nil, status.Error(code, err.Error())
	}
	info, err := os.Lstat(target)
	if errors.Is(err, fs.ErrNotExist) {
		return &csi.NodeUnpublishVolumeResponse{}, nil
	}
	if err != nil {
		return nil, status.Errorf(codes.Internal, "look at the target path: %v", err)
	}
	if !info.IsDir() {
		return nil, status.Errorf(codes.FailedPrecondition, "the target path %s is not a directory: left alone", target)
	}
	if err := checkEmpty(target); err != nil {
		return nil, err
	}
	// rmdir fails on a directory that is not empty or a mount point, whatever has
	// happened since.
	if err := os.Remove(target); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, status.Errorf(codes.Internal, "remove the target path: %v", err)
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

// occupy lets one call at a time work on target.
func (s *Server) occupy(target string) (release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[target] {
		return nil, status.Error(codes.Aborted, fmt.Sprintf("another call works on %s", target))
	}
	s.busy[target] = true
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.busy, target)
	}, nil
}
