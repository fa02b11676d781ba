package main

import (
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/flowcontrol"

	"sharevol.dev/sharevol/internal/election"
	"sharevol.dev/sharevol/internal/kubeclient"
)

// clients are the program's connections to the API server.
type clients struct {
	work kubernetes.Interface // writes only while the fence allows it, give or take AckTimeout
	// events are sent beside the work, which a burst of them would hold up by the rate limit.
	events kubernetes.Interface
	lease  kubernetes.Interface // the election's own: it waits for nothing else
}

// warningShare is what warnings may take, of what the work may take: many of them at once, too,
// cost the API server the time in which it could bind claims. The first few go at once.
const (
	warningShare = 0.05
	warningsSoon = 10
)

// warningPace is that of warnings.
func (c Config) warningPace() flowcontrol.RateLimiter {
	return flowcontrol.NewTokenBucketRateLimiter(float32(c.KubeAPIQPS)*warningShare, max(1, min(warningsSoon, int(float32(c.KubeAPIBurst)*warningShare))))
}

func newClients(config Config, fence *election.Fence) (clients, error) {
	options := kubeclient.Options{
		Kubeconfig: config.Kubeconfig, QPS: float32(config.KubeAPIQPS), Burst: config.KubeAPIBurst,
		UserAgent: "sharevol-provisioner/" + version, Fence: fence.Check, AckTimeout: election.AckTimeout,
	}
	work, err := kubeclient.New(options)
	if err != nil {
		return clients{}, err
	}
	events, err := kubeclient.New(options)
	if err != nil {
		return clients{}, err
	}
	options.Fence, options.UserAgent = nil, options.UserAgent+" leader-election"
	lease, err := kubeclient.New(options)
	return clients{work: work, events: events, lease: lease}, err
}
