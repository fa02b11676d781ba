package guest

import (
	"path/filepath"
	"slices"
	"strings"

	"sharevol.dev/sharevol/internal/testbed"
)

// component is one program of the cluster and its arguments.
type component struct {
	name, program string
	args          []string
}

// controllers are those that claims, pods and service accounts need.
var controllers = []string{
	"serviceaccount-controller", "serviceaccount-token-controller", "root-ca-certificate-publisher-controller",
	"deployment-controller", "replicaset-controller", "daemonset-controller",
	"persistentvolume-binder-controller", "persistentvolume-attach-detach-controller", "persistentvolume-expander-controller",
	"persistentvolumeclaim-protection-controller", "persistentvolume-protection-controller",
	"node-lifecycle-controller", "namespace-controller", "garbage-collector-controller", "pod-garbage-collector-controller",
}

// unneededAPIs are groups that nothing here uses; each costs the API server's start some work.
var unneededAPIs = []string{
	"autoscaling/v1", "autoscaling/v2", "batch/v1", "flowcontrol.apiserver.k8s.io/v1", "internal.apiserver.k8s.io/v1alpha1",
}

// first are the components that need no API server, and itself.
func first() []component {
	conf := func(name string) string { return filepath.Join(clusterDir, name) }
	return []component{
		{"etcd", filepath.Join(testbed.GuestPrograms, "etcd"), []string{
			"--data-dir=" + conf("etcd"), "--unsafe-no-fsync", "--log-level=warn",
		}},
		{"containerd", "containerd", []string{"--config=" + conf("containerd.toml")}},
		{"kube-apiserver", filepath.Join(testbed.GuestPrograms, "kube-apiserver"), []string{
			"--etcd-servers=http://127.0.0.1:2379",
			// on every address, so that the service address works without kube-proxy once it is on lo
			"--secure-port=443", "--advertise-address=" + NodeAddress, "--endpoint-reconciler-type=none",
			"--service-cluster-ip-range=" + serviceRange,
			"--tls-cert-file=" + conf("serving.crt"), "--tls-private-key-file=" + conf("serving.key"),
			"--token-auth-file=" + conf("tokens.csv"), "--authorization-mode=RBAC", "--allow-privileged=true",
			"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=" + conf("sa.key"),
			"--service-account-signing-key-file=" + conf("sa.key"),
			"--audit-policy-file=" + conf("audit.yaml"), "--audit-log-path=" + filepath.Join(testbed.GuestLogs, auditLog),
			"--kubelet-preferred-address-types=InternalIP",
			"--enable-priority-and-fairness=false", "--profiling=false",
			"--runtime-config=" + strings.Join(unneededAPIs, "=false,") + "=false",
			"--disable-admission-plugins=MutatingAdmissionWebhook,ValidatingAdmissionWebhook,MutatingAdmissionPolicy,ValidatingAdmissionPolicy",
		}},
	}
}

// second are the clients that wait for a server that is still coming up.
func second() []component {
	return []component{
		{"kubelet", filepath.Join(testbed.GuestPrograms, "kubelet"), []string{
			"--kubeconfig=" + KubeconfigPath, "--config=" + filepath.Join(clusterDir, "kubelet.yaml"),
			"--hostname-override=" + NodeName, "--node-ip=" + NodeAddress,
		}},
		{"kube-scheduler", filepath.Join(testbed.GuestPrograms, "kube-scheduler"), []string{
			"--kubeconfig=" + KubeconfigPath, "--leader-elect=false", "--profiling=false",
		}},
	}
}

// third is the one that gives up 10 s after it began to wait for a ready server.
func third(controllers []string) []component {
	return []component{
		{"kube-controller-manager", filepath.Join(testbed.GuestPrograms, "kube-controller-manager"), []string{
			"--kubeconfig=" + KubeconfigPath, "--leader-elect=false", "--kube-api-qps=500", "--kube-api-burst=1000",
			"--controllers=" + strings.Join(controllers, ","),
			"--service-account-private-key-file=" + filepath.Join(clusterDir, "sa.key"),
			"--root-ca-file=" + filepath.Join(clusterDir, "ca.crt"), "--profiling=false",
		}},
	}
}

// all are the components, by the order in which they start.
func all() []component {
	return slices.Concat(first(), second(), third(controllers))
}
