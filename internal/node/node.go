// Package node is the CSI node service: it mounts volume directories on pods'
// target paths, unmounts them, and says how they are.
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

	"sharevol.dev/sharevol/internal/nfsmount"
)

// Every call ends in time, whatever the server does: kubelet gives up on one after 2
// minutes, and what is killed at a deadline needs time to end and to be undone; see
// nfsmount.Mounter for how much.
const (
	publishTimeout   = 70 * time.Second // and 35 s for killing and undoing
	unpublishTimeout = 22 * time.Second // and 5 s for killing
	trialTimeout     = 20 * time.Second
	undoTimeout      = 15 * time.Second // and 5 s for killing
)

// DefaultKubeletDir is where kubelet has its folder unless it is told otherwise.
const DefaultKubeletDir = "/var/lib/kubelet"

// Mounter mounts NFS exports; see nfsmount.Mounter for what is promised.
type Mounter interface {
	Mount(ctx context.Context, source, target string, options []string) error
	Unmount(ctx context.Context, target string) error
	Layers(target string) ([]nfsmount.Layer, error)
	Mounts() ([]nfsmount.Mounted, error)
	Unended(target string) error
	Check() error
}

// Options of a Server.
type Options struct {
	// NodeID is the node's name.
	NodeID string
	// KubeletDir is kubelet's folder, absolute; DefaultKubeletDir when empty. No
	// path outside of it is touched for a request.
	KubeletDir string
	// TrialDir is a folder of the program's own, for the trial mounts that come before a
	// stale mount is replaced; that for temporary files when empty.
	TrialDir string
	// Statfs asks the file system at path for its space, and may block for as long as its
	// server does not answer; statfs(2) when nil.
	Statfs func(path string) (Space, error)
	// StatfsTimeout is how long an answer is waited for, 5 s when zero.
	StatfsTimeout time.Duration
}

// Server is the node service. Its methods may be called concurrently; of two
// calls for one target path the second gets Aborted while the first runs, and
// kubelet repeats it. Nothing that it does for one volume waits for another's server.
type Server struct {
	csi.UnimplementedNodeServer
	nodeID  string
	mounter Mounter
	folder  folder
	prober  *prober
	trials  trials

	mu   sync.Mutex
	busy map[string]bool // what calls work on: target paths, and sources of which one mount is allowed
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
		folder:  folder{path: options.KubeletDir, mounter: mounter},
		prober:  newProber(options.Statfs, options.StatfsTimeout),
		trials:  trials{dir: options.TrialDir, prefix: trialPrefix + rand.Text()[:8] + "-", mounter: mounter},
		busy:    map[string]bool{},
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

// occupy lets one call at a time work on each of what it is given.
func (s *Server) occupy(what ...string) (release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range what {
		if s.busy[key] {
			return nil, status.Errorf(codes.Aborted, "another call works on %s", key)
		}
	}
	for _, key := range what {
		s.busy[key] = true
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, key := range what {
			delete(s.busy, key)
		}
	}, nil
}

// look returns what is mounted on target. Where nothing is, and nothing may still
// come from an earlier mount, the target is on the node's own disk, and only then may
// it be touched: on a dead server a look would never end.
func (s *Server) look(target string) ([]nfsmount.Layer, error) {
	// In this order: what has ended by now shows in what is read next.
	pending := s.mounter.Unended(target)
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
	layers, err := s.look(target)
	switch {
	case err != nil:
		return status.Errorf(codes.Unavailable, "%s; %s", message, status.Convert(err).Message())
	case len(layers) > 0:
		return status.Errorf(codes.Unavailable, "%s; and %s is mounted on %s", message, layers[len(layers)-1].Source, target)
	}
	return status.Error(code, message)
}

// retryable returns an error that kubelet takes as: perhaps mounted, try again.
func retryable(err error) error {
	code := codes.Unavailable
	if errors.Is(err, context.DeadlineExceeded) {
		code = codes.DeadlineExceeded
	}
	return status.Error(code, oneLine(err))
}

func oneLine(err error) string { return strings.ReplaceAll(fmt.Sprint(err), "\n", "; ") }
