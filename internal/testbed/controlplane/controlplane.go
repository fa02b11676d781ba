// Package controlplane runs a Kubernetes control plane on the host itself: etcd, a kube-apiserver with RBAC
// and an audit log, and of kube-controller-manager what claims and volumes need. It is up within seconds,
// needs no privilege, and several can run at once. There are no nodes: sharevol's provisioner runs
// beside it, as a process, with its shares premounted (any local folder) and the rights of its manifests.
package controlplane

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"sharevol.dev/sharevol/internal/testbed"
	"sharevol.dev/sharevol/internal/testbed/guest"
)

const (
	// startWithin bounds the start, which takes some 5 s.
	startWithin = 2 * time.Minute
	poll        = 100 * time.Millisecond
)

// componentEnv trades memory for time.
var componentEnv = []string{"GOGC=400"}

// Options of a control plane.
type Options struct {
	Name string // begins the names of its log files
	Dir  string // an existing, empty folder for its configuration, keys and data
	Logs string // an existing folder for its logs, the audit log among them
	// Release is that of kube-apiserver and kube-controller-manager; etcd and kubectl are today's.
	Release testbed.Release
	// Measured leaves out the audit log, and has the API server serve profiles.
	Measured bool
}

// ControlPlane is a running control plane. Its methods may be called concurrently, but for Stop.
type ControlPlane struct {
	options                     Options
	programs                    string // folder of etcd and kubectl
	kubernetes                  string // and of the release's programs
	manifests                   string
	etcdPort, peerPort, apiPort *port
	components                  []*process
	client                      kubernetes.Interface
	uid                         string
}

// Start starts a control plane and returns when claims can be made and are bound. The programs are built
// first if they are not yet. It runs until Stop, or until ctx ends.
func Start(ctx context.Context, host *testbed.Host, options Options) (*ControlPlane, error) {
	programs, err := host.Kubernetes(ctx)
	if err != nil {
		return nil, err
	}
	kubernetes, err := host.ControlPlane(ctx, options.Release)
	if err != nil {
		return nil, err
	}
	c := &ControlPlane{options: options, programs: programs, kubernetes: kubernetes, manifests: filepath.Join(host.Root(), "manifests")}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start the control plane %s: %w", options.Name, err), c.Stop())
	}
	return c, nil
}

func (c *ControlPlane) start(ctx context.Context) error {
	for _, p := range []**port{&c.etcdPort, &c.peerPort, &c.apiPort} {
		var err error
		if *p, err = reservePort(); err != nil {
			return err
		}
	}
	if err := c.writeConfig(); err != nil {
		return err
	}
	// At once: the API server waits for etcd by itself.
	if err := c.launch(ctx, c.programs, "etcd", c.etcdArgs()); err != nil {
		return err
	}
	if err := c.launch(ctx, c.kubernetes, "kube-apiserver", c.apiServerArgs()); err != nil {
		return err
	}
	starting, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	err := guest.WaitFor(starting, "the API server's certificate", poll, c.check(func(context.Context) error {
		_, err := os.Stat(c.path("certs", "apiserver.key")) // made after the certificate
		return err
	}))
	if err != nil {
		return err
	}
	if c.client, err = newClient(c.Kubeconfig()); err != nil {
		return err
	}
	if err := guest.WaitFor(starting, "the API server to be ready", poll, c.check(c.ready)); err != nil {
		return err
	}
	// It gives up soon where there is no ready server.
	if err := c.launch(ctx, c.kubernetes, "kube-controller-manager", c.controllerManagerArgs()); err != nil {
		return err
	}
	return guest.WaitFor(starting, "the namespaces", poll, c.check(c.namespaces))
}

func newClient(kubeconfig string) (kubernetes.Interface, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig: %w", err)
	}
	config.QPS = -1 // no limit
	config.Timeout = time.Minute
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = config.ContentType + ",application/json"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	return client, nil
}

func (c *ControlPlane) launch(ctx context.Context, programs, name string, args []string) error {
	p, err := launch(ctx, c.options.Name+"'s "+name, c.log(name), componentEnv, filepath.Join(programs, name), args...)
	if err == nil {
		c.components = append(c.components, p)
	}
	return err
}

// check makes a Check out of a call that fails until all is well; it fails for good when a component has ended.
func (c *ControlPlane) check(try func(ctx context.Context) error) guest.Check {
	return func(ctx context.Context) (bool, string, error) {
		err := try(ctx)
		if err == nil {
			return true, "", nil
		}
		return false, err.Error(), c.Alive()
	}
}

func (c *ControlPlane) ready(ctx context.Context) error {
	body, err := c.client.Discovery().RESTClient().Get().AbsPath(c.readyPath()).Timeout(5 * time.Second).DoRaw(ctx)
	if err != nil {
		return fmt.Errorf("%w: %s", err, body)
	}
	return nil
}

func (c *ControlPlane) namespaces(ctx context.Context) error {
	if _, err := c.client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceDefault, metav1.GetOptions{}); err != nil {
		return err
	}
	system, err := c.client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	c.uid = string(system.UID)
	return err
}

// Client is an administrator's client without a rate limit.
func (c *ControlPlane) Client() kubernetes.Interface { return c.client }

// Kubeconfig is the path of an administrator's kubeconfig.
func (c *ControlPlane) Kubeconfig() string { return c.path("kubeconfig") }

// UID is that of the namespace kube-system, which tells clusters apart.
func (c *ControlPlane) UID() string { return c.uid }

// Alive returns an error for each component that has ended by itself.
func (c *ControlPlane) Alive() error {
	var all []error
	for _, p := range c.components {
		all = append(all, p.alive())
	}
	return errors.Join(all...)
}

// Used is the processor time that each component has taken so far, by the name of its program.
func (c *ControlPlane) Used() (map[string]time.Duration, error) {
	used := map[string]time.Duration{}
	for _, p := range c.components {
		var err error
		if used[filepath.Base(p.cmd.Path)], err = p.used(); err != nil {
			return nil, err
		}
	}
	return used, nil
}

// ServiceAccountKubeconfig returns the path of a new kubeconfig with a token of a service account, valid for an
// hour, so that the API server grants what the account was granted and no more.
func (c *ControlPlane) ServiceAccountKubeconfig(ctx context.Context, namespace, name string) (string, error) {
	var seconds int64 = 3600
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
	token, err := c.client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name, request, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("get a token of service account %s: %w", name, err)
	}
	file, err := os.CreateTemp(c.options.Dir, "kubeconfig-"+name+"-")
	if err != nil {
		return "", fmt.Errorf("write a kubeconfig: %w", err)
	}
	_, err = file.WriteString(c.kubeconfig(token.Status.Token))
	if err := errors.Join(err, file.Close()); err != nil {
		return "", fmt.Errorf("write a kubeconfig: %w", err)
	}
	return file.Name(), nil
}

// Stop ends the components, clients first. It may be repeated.
func (c *ControlPlane) Stop() error {
	var all []error
	for ; len(c.components) > 0; c.components = c.components[:len(c.components)-1] {
		all = append(all, c.components[len(c.components)-1].stop())
	}
	for _, p := range []**port{&c.etcdPort, &c.peerPort, &c.apiPort} {
		if *p != nil {
			(*p).close()
			*p = nil
		}
	}
	return errors.Join(all...)
}
