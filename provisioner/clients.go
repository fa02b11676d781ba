package main

import (
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/flowcontrol"

	"sharevol.dev/sharevol/internal/election"
	"sharevol.dev/sharevol/internal/events"
	"sharevol.dev/sharevol/internal/fence"
	"sharevol.dev/sharevol/internal/kubeclient"
)

// clients are the program's connections to the API server.
type clients struct {
	work kubernetes.Interface // writes only while the fence allows it, give or take AckTimeout
	// events are sent beside the work, which a burst of them would hold up by the rate limit.
	events kubernetes.Interface
	lease  kubernetes.Interface // the election's own: it waits for nothing else
}

// eventBudget is what events may take besides what the work may take: warnings a twentieth, Normal events a hundredth.
// The first few go at once, and no more: fifty at once cost the API server the time in which it could bind claims.
func (c Config) eventBudget() events.Budget {
	limit := func(share float32, burst int) flowcontrol.RateLimiter {
		return flowcontrol.NewTokenBucketRateLimiter(share*float32(c.KubeAPIQPS), max(1, min(burst, c.KubeAPIBurst/20)))
	}
	return events.Budget{Warnings: limit(0.05, 10), Normal: limit(0.01, 25)}
}

func newClients(config Config, writeFence *fence.Fence) (clients, error) {
	options := kubeclient.Options{
		Kubeconfig: config.Kubeconfig, QPS: float32(config.KubeAPIQPS), Burst: config.KubeAPIBurst,
		UserAgent: "sharevol-provisioner/" + version, Fence: writeFence.Check, AckTimeout: election.AckTimeout,
	}
	work, err := kubeclient.New(options)
	if err != nil {
		return clients{}, err
	}
	forEvents, err := kubeclient.New(options)
	if err != nil {
		return clients{}, err
	}
	options.Fence, options.UserAgent = nil, options.UserAgent+" leader-election"
	lease, err := kubeclient.New(options)
	return clients{work: work, events: forEvents, lease: lease}, err
}
