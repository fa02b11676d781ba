package main

import (
	"k8s.io/client-go/kubernetes"

	"sharevol.dev/sharevol/internal/election"
	"sharevol.dev/sharevol/internal/kubeclient"
)

// clients are the program's connections to the API server.
type clients struct {
	work kubernetes.Interface // writes only while the fence allows it, give or take AckTimeout
	// events are sent beside the work, and give way to it: a burst of them would hold it up,
	// by the rate limit or by what they cost the API server.
	events kubernetes.Interface
	lease  kubernetes.Interface // the election's own: it waits for nothing else
}

// eventsShare is what events may take, of what the work may take. Normal ones wait, and few
// claims have warnings in a minute.
const eventsShare = 0.05

func newClients(config Config, fence *election.Fence) (clients, error) {
	options := kubeclient.Options{
		Kubeconfig: config.Kubeconfig, QPS: float32(config.KubeAPIQPS), Burst: config.KubeAPIBurst,
		UserAgent: "sharevol-provisioner/" + version, Fence: fence.Check, AckTimeout: election.AckTimeout,
	}
	work, err := kubeclient.New(options)
	if err != nil {
		return clients{}, err
	}
	giving := options
	giving.QPS, giving.Burst = options.QPS*eventsShare, max(1, int(float32(options.Burst)*eventsShare))
	events, err := kubeclient.New(giving)
	if err != nil {
		return clients{}, err
	}
	options.Fence, options.UserAgent = nil, options.UserAgent+" leader-election"
	lease, err := kubeclient.New(options)
	return clients{work: work, events: events, lease: lease}, err
}
