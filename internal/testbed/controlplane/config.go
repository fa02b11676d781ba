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

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sharevol.dev/sharevol/internal/testbed/guest"
)

const adminToken = "admin-token"

// The manifests for old releases use a namespace that is there already.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  userGroups: ["system:serviceaccounts:` + guest.SystemNamespace + `", "system:serviceaccounts:` + metav1.NamespaceSystem + `"]
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

// path returns a path in the control plane's folder.
func (c *ControlPlane) path(elem ...string) string {
	return filepath.Join(append([]string{c.options.Dir}, elem...)...)
}

func (c *ControlPlane) log(name string) string {
	return filepath.Join(c.options.Logs, c.options.Name+"-"+name+".log")
}

func (c *ControlPlane) auditLog() string { return c.log("audit") }
