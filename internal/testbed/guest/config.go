package guest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	clusterDir     = "/run/cluster" // configuration, keys and etcd's data, in memory
	cniDir         = "/etc/cni/net.d"
	containerdSock = "/run/containerd/containerd.sock"
	serviceRange   = "10.96.0.0/16"
	serviceAddress = "10.96.0.1" // of the API, by which pods know it
	adminToken     = "admin-token"
	// SystemNamespace is where sharevol runs; its service accounts' calls are in the audit log.
	SystemNamespace = "sharevol-system"
)

// clusterFiles are the configuration files, by their path below clusterDir or absolute.
var clusterFiles = map[string]string{
	"tokens.csv": adminToken + ",admin,admin,system:masters\n",
	"kubeconfig": `apiVersion: v1
kind: Config
clusters: [{name: testbed, cluster: {server: "https://127.0.0.1:443", certificate-authority: ` + clusterDir + `/ca.crt}}]
users: [{name: admin, user: {token: ` + adminToken + `}}]
contexts: [{name: testbed, context: {cluster: testbed, user: admin}}]
current-context: testbed
`,
	"audit.yaml": `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  userGroups: ["system:serviceaccounts:` + SystemNamespace + `"]
- level: None
`,
	"kubelet.yaml": `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
tlsCertFile: ` + clusterDir + `/serving.crt
tlsPrivateKeyFile: ` + clusterDir + `/serving.key
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
containerRuntimeEndpoint: unix://` + containerdSock + `
enforceNodeAllocatable: []
evictionHard: {nodefs.available: "0%", imagefs.available: "0%", memory.available: "10Mi"}
imageGCHighThresholdPercent: 100
imageMinimumGCAge: 24h
resolvConf: /etc/resolv.conf
# a test waits for what kubelet reports
nodeStatusUpdateFrequency: 5s
syncFrequency: 10s
`,
	"containerd.toml": `version = 2
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.internal.v1.opt"]
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "registry.k8s.io/pause:3.10"
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "` + cniDir + `"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
`,
	cniDir + "/10-bridge.conflist": `{"cniVersion": "0.4.0", "name": "pods", "plugins": [{
  "type": "bridge", "bridge": "cni0", "isGateway": true, "isDefaultGateway": true, "hairpinMode": true,
  "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]], "dataDir": "/run/cni"}}]}
`,
}

// writeConfig writes all files and keys that the components read.
func writeConfig() error {
	if err := os.MkdirAll(clusterDir, 0o700); err != nil {
		return fmt.Errorf("make the cluster's folder: %w", err)
	}
	for path, text := range clusterFiles {
		if !filepath.IsAbs(path) {
			path = filepath.Join(clusterDir, path)
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("write the cluster's configuration: %w", err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return fmt.Errorf("write the cluster's configuration: %w", err)
		}
	}
	return writeKeys()
}

// writeKeys makes a certificate authority, one certificate for all that serves, and the key that signs
// service accounts' tokens. Elliptic curves, because they cost a slow machine little.
func writeKeys() error {
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "testbed"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make the authority's key: %w", err)
	}
	if err := writeCertificate("ca.crt", ca, ca, caKey, caKey); err != nil {
		return err
	}
	serving := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "node1"},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    strings.Fields("node1 localhost kubernetes kubernetes.default kubernetes.default.svc"),
		IPAddresses: []net.IP{net.ParseIP("127.0.0.1"), net.ParseIP(serviceAddress), net.ParseIP(NodeAddress)},
	}
	key, err := writeKey("serving.key")
	if err != nil {
		return err
	}
	if err := writeCertificate("serving.crt", serving, ca, key, caKey); err != nil {
		return err
	}
	_, err = writeKey("sa.key")
	return err
}

func writeKey(name string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", name, err)
	}
	data, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", name, err)
	}
	return key, writePEM(name, "EC PRIVATE KEY", data)
}

func writeCertificate(name string, cert, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) error {
	cert.NotBefore, cert.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	data, err := x509.CreateCertificate(rand.Reader, cert, parent, key.Public(), parentKey)
	if err != nil {
		return fmt.Errorf("make %s: %w", name, err)
	}
	return writePEM(name, "CERTIFICATE", data)
}

func writePEM(name, kind string, data []byte) error {
	text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data})
	if err := os.WriteFile(filepath.Join(clusterDir, name), text, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
