package kubeclient

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/fault"
)

// deadline bounds each call but watches, whatever context the caller gave: the
// controller library saves volumes without any.
type deadline struct {
	next    http.RoundTripper
	timeout time.Duration
}

func (d deadline) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.URL.Query().Get("watch") == "true" {
		return d.next.RoundTrip(request)
	}
	ctx, cancel := context.WithTimeout(request.Context(), d.timeout)
	response, err := d.next.RoundTrip(request.WithContext(ctx))
	if err != nil {
		cancel()
		return nil, err
	}
	// The deadline also bounds reading the body, and ends with it.
	response.Body = cancelOnClose{ReadCloser: response.Body, cancel: cancel}
	return response, nil
}

type cancelOnClose struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (c cancelOnClose) Close() error {
	defer c.cancel()
	return c.ReadCloser.Close()
}

// faultPoints lets tests end the program after a volume was changed in the API and
// before the program acts on that.
type faultPoints struct{ next http.RoundTripper }

func (f faultPoints) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := f.next.RoundTrip(request)
	if err != nil || response.StatusCode >= http.StatusMultipleChoices {
		return response, err
	}
	if point := pointAfter(request); point != "" {
		fault.Point(point)
	}
	return response, nil
}

// pointAfter names the fault point after a request that succeeded, "" if there is none.
func pointAfter(request *http.Request) string {
	name, ok := strings.CutPrefix(request.URL.Path, "/api/v1/persistentvolumes")
	switch {
	case !ok || strings.Count(name, "/") > 1: // another resource, or a volume's status
		return ""
	case request.Method == http.MethodPost && name == "":
		return "pv-saved"
	case request.Method == http.MethodDelete:
		return "pv-deleted"
	case request.Method == http.MethodPut, request.Method == http.MethodPatch:
		return "pv-updated" // the controller takes its finalizer off
	}
	return ""
}

// impatientDialer makes connections that end when nothing is acknowledged for timeout.
func impatientDialer(timeout time.Duration) *net.Dialer {
	return &net.Dialer{
		Timeout: timeout,
		ControlContext: func(_ context.Context, _, _ string, connection syscall.RawConn) error {
			var err error
			failed := connection.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(timeout.Milliseconds()))
			})
			return errors.Join(failed, err)
		},
	}
}
