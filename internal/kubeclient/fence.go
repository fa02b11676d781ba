package kubeclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// ErrNotSent says that a request did not leave this process: it has changed nothing.
var ErrNotSent = errors.New("request not sent")

// fenceEvery is how often a write that is on its way asks the fence whether it may
// still be. The fence leaves some seconds for what was sent before its end.
const fenceEvery = 50 * time.Millisecond

// fence refuses what could change anything while check returns an error, and gives up
// what has not been answered when that begins: it may be waiting for a connection, and
// would be sent as soon as there is one. What was given up may have been done.
type fence struct {
	next  http.RoundTripper
	check func() error
}

func (f fence) RoundTrip(request *http.Request) (*http.Response, error) {
	switch request.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions: // "" is GET
		return f.next.RoundTrip(request)
	}
	if err := f.check(); err != nil {
		if request.Body != nil {
			_ = request.Body.Close() // as a RoundTripper must
		}
		return nil, fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	ctx, cancel := context.WithCancelCause(request.Context())
	answered := make(chan struct{})
	go f.watch(ctx, cancel, answered)
	request = request.WithContext(ctx)
	f.fenceBody(request)
	response, err := f.next.RoundTrip(request)
	close(answered)
	if err != nil {
		cancel(nil)
		if reason := f.check(); reason != nil {
			err = fmt.Errorf("%w: %w", reason, err)
		}
		return nil, err
	}
	response.Body = cancelOnClose{ReadCloser: response.Body, cancel: func() { cancel(nil) }}
	return response, nil
}

// fenceBody has the check made each time that request's body is read.
func (f fence) fenceBody(request *http.Request) {
	if request.Body == nil || request.Body == http.NoBody {
		return
	}
	request.Body = fencedBody{request.Body, f.check}
	again := request.GetBody
	if again == nil {
		return
	}
	request.GetBody = func() (io.ReadCloser, error) { // for another connection
		body, err := again()
		if err != nil {
			return nil, err
		}
		return fencedBody{body, f.check}, nil
	}
}

// watch ends ctx when the fence is over, unless the request is answered before.
func (f fence) watch(ctx context.Context, cancel context.CancelCauseFunc, answered <-chan struct{}) {
	ticker := time.NewTicker(fenceEvery)
	defer ticker.Stop()
	for {
		select {
		case <-answered:
			return
		case <-ctx.Done():
			return
		case <-ticker.C:
			if err := f.check(); err != nil {
				cancel(err)
				return
			}
		}
	}
}

// fencedBody can't be read while check returns an error. It is read when the
// connection is there, so that not even a process that was stopped until then sends it.
type fencedBody struct {
	io.ReadCloser
	check func() error
}

func (b fencedBody) Read(into []byte) (int, error) {
	if err := b.check(); err != nil {
		return 0, err
	}
	return b.ReadCloser.Read(into)
}
