// Package node is the CSI node service: it mounts volume directories on pods'
// target paths, unmounts them, and reports their space and health.
package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sharevol.dev/sharevol/internal/mount"
)

// Every call ends in time, whatever the server does: kubelet gives up on one after 2
// minutes, and what is killed at a deadline needs time to end and to be undone; see
// mount.Mounter for how much.
const (
	publishTimeout   = 70 * time.Second // and 35 s for killing and undoing
	unpublishTimeout = 22 * time.Second // and 5 s for killing
	trialTimeout     = 20 * time.Second
	undoTimeout      = 15 * time.Second // and 5 s for killing
)

// DefaultKubeletDir is kubelet's default root directory.
const DefaultKubeletDir = "/var/lib/kubelet"

// Mounter mounts volumes; see mount.Mounter for what is promised.
type Mounter interface {
	Mount(ctx context.Context, spec mount.Spec, target string) error
	Unmount(ctx context.Context, target string) error
	Layers(target string) ([]mount.Layer, error)
	Mounts() ([]mount.Mounted, error)
	Pending(target string) error
	Check() error
}

// Options of a Server.
type Options struct {
	// NodeID is the node's name.
	NodeID string
	// KubeletDir is kubelet's root directory, absolute; DefaultKubeletDir when empty. No
	// path outside of it is touched for a request.
	KubeletDir string
	// TrialDir is a directory of the program's own, for the trial mounts that come before a
	// stale mount is replaced; os.TempDir when empty.
	TrialDir string
	// Statfs asks the file system at path for its space, and may block for as long as its
	// server does not answer; statfs(2) when nil.
	Statfs func(path string) (Space, error)
	// StatfsTimeout is how long Statfs may take, 5 s when zero.
	StatfsTimeout time.Duration
}

// Server is the node service. Its methods may be called concurrently; of two
// calls for one target path the second gets Aborted while the first runs, and
// kubelet repeats it. Nothing that it does for one volume waits for another's server.
type Server struct {
	csi.UnimplementedNodeServer
	nodeID  string
	mounter Mounter
	kubelet kubeletDir
	prober  *prober
	trials  trialMounts

	mu     sync.Mutex
	locked map[string]bool // by running calls: target paths, and sources of which one mount is allowed
}

var _ csi.NodeServer = (*Server)(nil)

// New returns a node service.
func New(mounter Mounter, options Options) *Server {
	if options.KubeletDir == "" {
		options.KubeletDir = DefaultKubeletDir
	}
	options.KubeletDir = filepath.Clean(options.KubeletDir)
	return &Server{
		nodeID:  options.NodeID,
		mounter: mounter,
		kubelet: kubeletDir{path: options.KubeletDir, mounter: mounter},
		prober:  newProber(options.Statfs, options.StatfsTimeout),
		trials:  trialMounts{dir: options.TrialDir, prefix: trialPrefix + rand.Text()[:8] + "-", mounter: mounter},
		locked:  map[string]bool{},
	}
}

// NodeGetInfo returns the node's id. Volumes have no topology and no limit.
func (s *Server) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: s.nodeID}, nil
}

// NodeGetCapabilities returns what goes beyond publishing: statistics, health, and the
// two access modes that tell one writer on a node from several. There is nothing to stage.
func (s *Server) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	var capabilities []*csi.NodeServiceCapability
	for _, kind := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_GET_VOLUME_STATS,
		volumeCondition,
		csi.NodeServiceCapability_RPC_GET_VOLUME_HEALTH,
		csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		capabilities = append(capabilities, &csi.NodeServiceCapability{
			Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: kind}},
		})
	}
	return &csi.NodeGetCapabilitiesResponse{Capabilities: capabilities}, nil
}

// lockTargets keeps other calls from each of the keys, until unlock. Aborted: one of them
// is another call's.
func (s *Server) lockTargets(keys ...string) (unlock func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range keys {
		if s.locked[key] {
			return nil, status.Errorf(codes.Aborted, "another call for %s is running", key)
		}
	}
	for _, key := range keys {
		s.locked[key] = true
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, key := range keys {
			delete(s.locked, key)
		}
	}, nil
}

// mountedOn returns what is mounted on target. Where nothing is, and nothing may still
// come from an earlier mount, the target is on the node's own disk, and only then may
// it be touched: on a dead server a look would never end.
func (s *Server) mountedOn(target string) ([]mount.Layer, error) {
	// In this order: what has ended by now shows in what is read next.
	pending := s.mounter.Pending(target)
	layers, err := s.mounter.Layers(target)
	if err == nil && len(layers) == 0 {
		err = pending
	}
	if err != nil {
		return nil, status.Error(codes.Unavailable, oneLine(err))
	}
	return layers, nil
}

// refuse returns an error with a final code, after which kubelet forgets the mount
// and never unpublishes it: only where nothing is mounted on target, nor will be. Otherwise
// the code is Unavailable.
func (s *Server) refuse(target string, code codes.Code, message string) error {
	layers, err := s.mountedOn(target)
	switch {
	case err != nil:
		return status.Errorf(codes.Unavailable, "%s; %s", message, status.Convert(err).Message())
	case len(layers) > 0:
		return status.Errorf(codes.Unavailable, "%s; %s is mounted on %s", message, layers[len(layers)-1].Source, target)
	}
	return status.Error(code, message)
}

// retryable returns an error by which kubelet takes the volume as perhaps mounted, and
// tries again.
func retryable(err error) error {
	code := codes.Unavailable
	if errors.Is(err, context.DeadlineExceeded) {
		code = codes.DeadlineExceeded
	}
	return status.Error(code, oneLine(err))
}

func oneLine(err error) string { return strings.ReplaceAll(fmt.Sprint(err), "\n", "; ") }
