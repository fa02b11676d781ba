// Package kubeclient makes the client of the Kubernetes API server: with limits
// that suit a controller, a deadline on every call, and nothing that hangs on
// old servers.
package kubeclient

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	// Fence, if not nil, is asked before each request that could change anything, and
	// again and again until that is answered. While it returns an error such requests
	// fail with one that matches the fence's, and ErrNotSent if they had not begun. With
	// AckTimeout, nothing of them leaves this machine later than that after the
	// fence's end.
	Fence func() error
	// AckTimeout, if not zero, gives the client a connection of its own, which is
	// given up when what was sent on it is not acknowledged for so long, or when it
	// can't be made in that time: a network that drops packets is noticed early. A
	// server that is only slow is not affected. For leader election, and for what may
	// not be written after its end.
	AckTimeout time.Duration
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
	if options.AckTimeout != 0 {
		config.Dial = impatientDialer(options.AckTimeout).DialContext
	}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		next = deadline{next: faultPoints{next: next}, timeout: callTimeout}
		if options.Fence != nil {
			next = fence{next: next, check: options.Fence}
		}
		return next
	})
	return kubernetes.NewForConfig(config)
}

// ClusterID returns what tells this cluster from every other: the UID of the
// namespace kube-system, which lives as long as the cluster.
func ClusterID(ctx context.Context, client kubernetes.Interface) (string, error) {
	namespace, err := client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("tell this cluster from others: %w", err)
	}
	if namespace.UID == "" {
		return "", fmt.Errorf("tell this cluster from others: namespace %s has no UID", metav1.NamespaceSystem)
	}
	return string(namespace.UID), nil
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
// client-go 0.35: an old API server, of 1.15 for one, ignores sendInitialEvents, and the
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
