package controlplane

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sharevol.dev/sharevol/internal/testbed/guest"
)

const adminToken = "admin-token"

// controllers are those that claims and volumes need where there are no nodes and no pods.
var controllers = []string{
	"persistentvolume-binder-controller",
	"persistentvolumeclaim-protection-controller", "persistentvolume-protection-controller",
}

// unneededAPIs are groups that nothing here uses; each costs the API server's start some work.
var unneededAPIs = []string{
	"autoscaling/v1", "autoscaling/v2", "batch/v1", "flowcontrol.apiserver.k8s.io/v1", "internal.apiserver.k8s.io/v1alpha1",
}

const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  userGroups: ["system:serviceaccounts:` + guest.SystemNamespace + `"]
- level: None
`

// kubeconfig returns one for the API server of this control plane. The server makes its own certificate.
func (c *ControlPlane) kubeconfig(token string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: testbed, cluster: {server: "https://%s", certificate-authority: %q}}]
users: [{name: user, user: {token: %q}}]
contexts: [{name: testbed, context: {cluster: testbed, user: user}}]
current-context: testbed
`, c.apiPort.address(), c.path("certs", "apiserver.crt"), token)
}

// writeConfig writes all files and keys that the components read.
func (c *ControlPlane) writeConfig() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make the key of service accounts: %w", err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode the key of service accounts: %w", err)
	}
	for path, text := range map[string]string{
		"sa.key":     string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})),
		"tokens.csv": adminToken + ",admin,admin,system:masters\n",
		"audit.yaml": auditPolicy,
		"kubeconfig": c.kubeconfig(adminToken),
	} {
		if err := os.WriteFile(c.path(path), []byte(text), 0o600); err != nil {
			return fmt.Errorf("write the configuration: %w", err)
		}
	}
	return nil
}

func (c *ControlPlane) etcdArgs() []string {
	client, peer := "http://"+c.etcdPort.address(), "http://"+c.peerPort.address()
	return []string{
		"--data-dir=" + c.path("etcd"), "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=default=" + peer,
	}
}

func (c *ControlPlane) apiServerArgs() []string {
	return []string{
		"--etcd-servers=http://" + c.etcdPort.address(),
		"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", c.apiPort.number), "--cert-dir=" + c.path("certs"),
		"--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.96.0.0/16",
		"--token-auth-file=" + c.path("tokens.csv"), "--authorization-mode=RBAC",
		"--allow-privileged=true", // for the manifests' pods, which never run here
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=" + c.path("sa.key"),
		"--service-account-signing-key-file=" + c.path("sa.key"),
		"--audit-policy-file=" + c.path("audit.yaml"), "--audit-log-path=" + c.auditLog(), "--audit-log-maxsize=2000",
		"--enable-priority-and-fairness=false", "--profiling=false",
		"--runtime-config=" + strings.Join(unneededAPIs, "=false,") + "=false",
		"--disable-admission-plugins=MutatingAdmissionWebhook,ValidatingAdmissionWebhook,MutatingAdmissionPolicy,ValidatingAdmissionPolicy",
	}
}

func (c *ControlPlane) controllerManagerArgs() []string {
	return []string{
		"--kubeconfig=" + c.Kubeconfig(), "--leader-elect=false", "--kube-api-qps=1000", "--kube-api-burst=2000",
		"--controllers=" + strings.Join(controllers, ","), "--secure-port=0", "--profiling=false",
	}
}

// path returns a path in the control plane's folder.
func (c *ControlPlane) path(elem ...string) string {
	return filepath.Join(append([]string{c.options.Dir}, elem...)...)
}

func (c *ControlPlane) log(name string) string {
	return filepath.Join(c.options.Logs, c.options.Name+"-"+name+".log")
}

func (c *ControlPlane) auditLog() string { return c.log("audit") }
