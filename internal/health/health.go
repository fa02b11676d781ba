// Package health serves /healthz, /readyz and /metrics over HTTP.
package health

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// checkTimeout bounds one check. kubelet's probes give up earlier.
const checkTimeout = 10 * time.Second

// Options are what Serve answers. Nil means: always healthy or ready, no metrics.
type Options struct {
	// Healthy returns an error when only a restart can help.
	Healthy func(context.Context) error
	// Ready returns an error while the program does not serve.
	Ready func(context.Context) error
	// Metrics serves /metrics.
	Metrics http.Handler
	// Profile serves all below /debug/pprof/, which does not exist when it is nil. A
	// profile takes as long as its request asks for.
	Profile http.Handler
}

// Listen opens address ("host:port") for Serve. It is a step of its own so that
// a program refuses a bad address at start.
func Listen(address string) (net.Listener, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("--http-address=%q: %w", address, err)
	}
	return listener, nil
}

// Serve answers on listener until ctx ends, and closes it. It returns nil when
// ctx ended.
func Serve(ctx context.Context, listener net.Listener, options Options) error {
	server := &http.Server{Handler: handler(options), ReadHeaderTimeout: checkTimeout, IdleTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve health on %s: %w", listener.Addr(), err)
	}
	return nil
}

func handler(options Options) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", answer(options.Healthy))
	mux.HandleFunc("GET /readyz", answer(options.Ready))
	if options.Metrics != nil {
		mux.Handle("GET /metrics", options.Metrics)
	}
	if options.Profile != nil {
		mux.Handle("/debug/pprof/", options.Profile)
	}
	return mux
}

func answer(check func(context.Context) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), checkTimeout)
		defer cancel()
		if check != nil {
			if err := check(ctx); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
		}
		_, _ = fmt.Fprintln(w, "ok")
	}
}
