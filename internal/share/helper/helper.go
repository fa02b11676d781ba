// Package helper runs the file operations on one share in a process of their
// own, which is the same program with the first argument Argument. A call to an NFS
// server that does not answer can't be cancelled, but a process that waits for it
// can be killed: that is what bounds every operation here.
//
// The provisioner and its helper exchange JSON frames over the helper's standard
// input and output. The helper ends when its input does, so that it does not
// outlive the provisioner, however that ended.
package helper

import (
	"context"
	"encoding/json"
	"errors"

	"sharevol.dev/sharevol/internal/share/dirs"
	"sharevol.dev/sharevol/internal/share/operation"
)

// Argument is the first argument of the program when it is to be a helper: main
// calls Main then, and exits when that returns.
const Argument = "share-helper"

// Work is an open share root. Its methods may be called at the same time.
type Work interface {
	// Run does an operation; see package operation.
	Run(ctx context.Context, operation string, arguments json.RawMessage) (any, error)
	// Probe proves that the share answers.
	Probe(ctx context.Context) error
}

// Root is the Work that does the operations.
type Root struct{ *dirs.Root }

// Run is operation.Run.
func (r Root) Run(ctx context.Context, name string, arguments json.RawMessage) (any, error) {
	return operation.Run(ctx, r.Root, name, arguments)
}

var (
	// ErrNoAnswer says that the server did not answer in time and that the helper
	// was killed for it. What was asked may still take effect, even later.
	ErrNoAnswer = errors.New("the NFS server does not answer")
	// ErrGone says that the helper ended, without need or because it was told to,
	// before it answered. What was asked may have taken effect.
	ErrGone = errors.New("the share's helper process has ended")
	// ErrStale says that the server has forgotten the share root itself, or that
	// somebody removed it, so that nothing works before the share is opened, or
	// mounted, anew. With it comes what the operation itself failed with.
	ErrStale = errors.New("the share root is stale")
)
