package helper

import (
	"context"
	"encoding/json"
	"errors"
	"syscall"
	"time"

	"sharevol.dev/sharevol/internal/share/dirs"
)

// The requests that are no operations of package operation.
const (
	opOpen  = "open"
	opProbe = "probe"
)

// maxFrame bounds the memory that one frame of a helper can take here. It is more
// than 100,000 owner records, and than the longest lists of a survey.
const maxFrame = 32 << 20

// request is a frame to the helper: an operation to begin, one to cancel, or
// neither, which only moves the fence.
type request struct {
	ID     uint64          `json:"id,omitempty"`
	Op     string          `json:"op,omitempty"`
	Args   json.RawMessage `json:"args,omitempty"`
	Cancel uint64          `json:"cancel,omitempty"` // the ID of a request before
	// Fence is what Fence.Until returned, in nanoseconds; missing if there is no fence.
	Fence *time.Duration `json:"fence,omitempty"`
}

// openArgs are the arguments of the first operation of a helper.
type openArgs struct {
	Path string `json:"path"`
	NFS  bool   `json:"nfs"`
}

// reply is a frame from the helper: a request's one answer, or before it the news
// that it has progressed.
type reply struct {
	ID       uint64          `json:"id"`
	Progress bool            `json:"progress,omitempty"`
	Result   json.RawMessage `json:"result,omitempty"`
	Error    *failure        `json:"error,omitempty"`
}

// failure is an error on its way.
type failure struct {
	Message string          `json:"message"`
	Kinds   []string        `json:"kinds,omitempty"`
	Errnos  []syscall.Errno `json:"errnos,omitempty"`
}

// kinds names the errors that callers test for.
var kinds = map[string]error{
	"untouched":  dirs.ErrUntouched,
	"conflict":   dirs.ErrConflict,
	"taken":      dirs.ErrTaken,
	"otherShare": dirs.ErrOtherShare,
	"fenced":     dirs.ErrFenced,
	"stale":      ErrStale,
	"canceled":   context.Canceled,
	"deadline":   context.DeadlineExceeded,
}

func newFailure(err error) *failure {
	f := &failure{Message: err.Error(), Errnos: errnos(err)}
	for name, kind := range kinds {
		if errors.Is(err, kind) {
			f.Kinds = append(f.Kinds, name)
		}
	}
	return f
}

// errnos returns all error numbers in err's tree.
func errnos(err error) []syscall.Errno {
	switch e := err.(type) {
	case syscall.Errno:
		return []syscall.Errno{e}
	case interface{ Unwrap() error }:
		return errnos(e.Unwrap())
	case interface{ Unwrap() []error }:
		var all []syscall.Errno
		for _, each := range e.Unwrap() {
			all = append(all, errnos(each)...)
		}
		return all
	}
	return nil
}

// error returns an error with the text of the one that was sent, which matches
// what that did, of kinds and of error numbers.
func (f *failure) error() error {
	e := &remoteError{message: f.Message}
	for _, name := range f.Kinds {
		e.matches = append(e.matches, kinds[name])
	}
	for _, errno := range f.Errnos {
		e.matches = append(e.matches, errno)
	}
	return e
}

type remoteError struct {
	message string
	matches []error
}

func (e *remoteError) Error() string   { return e.message }
func (e *remoteError) Unwrap() []error { return e.matches }
