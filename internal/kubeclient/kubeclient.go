// Package kubeclient makes the client of the Kubernetes API server: with limits
// that suit a controller, a deadline on every call, and nothing that hangs on
// old servers.
package kubeclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	clientfeatures "k8s.io/client-go/features"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// callTimeout bounds every call but a watch, which client-go ends by itself after
// some minutes. The API server's own limit for such calls is 60 s.
const callTimeout = 60 * time.Second

// Options of a client.
type Options struct {
	Kubeconfig string  // path of a kubeconfig; the pod's service account when empty
	QPS        float32 // requests a second, sustained
	Burst      int     // requests at once
	UserAgent  string  // who the API server's audit log names
}

// New returns a client. It calls no server.
func New(options Options) (kubernetes.Interface, error) {
	if err := disableWatchList(); err != nil {
		return nil, err
	}
	config, err := load(options.Kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS = options.QPS
	config.Burst = options.Burst
	config.UserAgent = options.UserAgent
	// Smaller and cheaper to read than JSON, and understood since Kubernetes 1.3.
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return deadline{next: next, timeout: callTimeout} })
	return kubernetes.NewForConfig(config)
}

func load(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		config, err := rest.InClusterConfig()
		if errors.Is(err, rest.ErrNotInCluster) {
			return nil, errors.New("not in a pod of a cluster: --kubeconfig must name a file")
		}
		return config, err
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig=%q: %w", kubeconfig, err)
	}
	return config, nil
}

// disableWatchList turns off the client's streaming lists, on by default since
// client-go 0.35: an API server before 1.27 ignores sendInitialEvents, and the
// informer waits for ever for a bookmark (kubernetes/kubernetes#135895).
func disableWatchList() error {
	gates, settable := clientfeatures.FeatureGates().(interface {
		Set(clientfeatures.Feature, bool) error
	})
	if !settable {
		return errors.New("client-go's feature gates can't be set")
	}
	return gates.Set(clientfeatures.WatchListClient, false)
}

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
