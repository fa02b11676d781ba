package controlplane

import (
	"fmt"
	"slices"
	"strings"
)

// controllers are those that claims and volumes need where there are no nodes and no pods.
var controllers = []string{
	"persistentvolume-binder-controller",
	"persistentvolumeclaim-protection-controller", "persistentvolume-protection-controller",
}

// controllersBefore128 are the same by the names that they had, and that which gives service accounts the
// secrets without which old API servers admit no pod.
var controllersBefore128 = []string{"persistentvolume-binder", "pvc-protection", "pv-protection", "serviceaccount-token"}

// unneededAPIs are groups that nothing here uses; each costs the API server's start some work.
var unneededAPIs = []string{
	"autoscaling/v1", "autoscaling/v2", "batch/v1", "flowcontrol.apiserver.k8s.io/v1", "internal.apiserver.k8s.io/v1alpha1",
}

func (c *ControlPlane) apiServerArgs() []string {
	args := []string{
		"--etcd-servers=http://" + c.etcdPort.address(),
		"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", c.apiPort.number), "--cert-dir=" + c.path("certs"),
		"--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.96.0.0/16",
		"--token-auth-file=" + c.path("tokens.csv"), "--authorization-mode=RBAC",
		"--allow-privileged=true", // for the manifests' pods, which never run here
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=" + c.path("sa.key"),
		"--service-account-signing-key-file=" + c.path("sa.key"),
	}
	if !c.options.Measured {
		args = append(args, "--profiling=false",
			"--audit-policy-file="+c.path("audit.yaml"), "--audit-log-path="+c.auditLog(), "--audit-log-maxsize=2000")
	}
	if c.options.Measured {
		// Without priority and fairness, the defaults refuse some of a thousand claims for a second.
		args = append(args, "--max-requests-inflight=4000", "--max-mutating-requests-inflight=2000")
	}
	switch release := c.options.Release; {
	case release == "":
		// Less to do at the start: an older release is tested as it comes.
		args = append(args, "--enable-priority-and-fairness=false",
			"--runtime-config="+strings.Join(unneededAPIs, "=false,")+"=false",
			"--disable-admission-plugins=MutatingAdmissionWebhook,ValidatingAdmissionWebhook,MutatingAdmissionPolicy,ValidatingAdmissionPolicy")
	case release.Before(24):
		args = append(args, "--insecure-port=0") // there by default, and the same for all
	}
	return args
}

func (c *ControlPlane) controllerManagerArgs() []string {
	names := controllers
	if c.options.Release.Before(28) {
		names = controllersBefore128
	}
	args := []string{
		"--kubeconfig=" + c.Kubeconfig(), "--leader-elect=false", "--kube-api-qps=1000", "--kube-api-burst=2000",
		"--controllers=" + strings.Join(names, ","), "--secure-port=0", "--profiling=false",
	}
	if slices.Contains(names, "serviceaccount-token") {
		args = append(args, "--service-account-private-key-file="+c.path("sa.key"))
	}
	if c.options.Release.Before(24) {
		args = append(args, "--port=0")
	}
	return args
}

// readyPath is what the API server answers with a status of 200 once it is ready.
func (c *ControlPlane) readyPath() string {
	if c.options.Release.Before(16) {
		return "/healthz"
	}
	return "/readyz"
}
