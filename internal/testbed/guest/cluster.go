package guest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"sharevol.dev/sharevol/internal/testbed"
)

const (
	// NodeName is the name of the cluster's only node.
	NodeName = "node1"
	// KubeconfigPath leads to an administrator's kubeconfig.
	KubeconfigPath = clusterDir + "/kubeconfig"

	auditLog = "audit.log"
	pollFast = 200 * time.Millisecond
	pollSlow = time.Second
)

// startWithin bounds the start of the cluster, which takes about a minute.
const startWithin = 5 * time.Minute

// componentEnv keeps the heaps small. It is not memory that the machine is short of, but of the host's
// mappings: one for each page that a program touches, and 65,530 for each program at most
// (vm.max_map_count), after which the user-mode kernel ends it with SIGKILL.
var componentEnv = []string{"GOGC=100", "GOMEMLIMIT=160MiB"}

// Cluster is a running cluster of one node, on which pods run. Its methods may be called concurrently.
type Cluster struct {
	note       func(format string, args ...any)
	client     kubernetes.Interface
	cancel     context.CancelFunc
	mu         sync.Mutex
	components []*process
}

// StartCluster starts everything, with the images that testbed.RunInMachine brought, and returns when the
// node is ready and pods can be made. note gets a line for each thing that is ready. The cluster runs until
// Stop, or until ctx ends.
func StartCluster(ctx context.Context, note func(format string, args ...any)) (*Cluster, error) {
	return startCluster(ctx, note, (*Cluster).start)
}

// startCluster prepares what all components need and lets start bring them up.
func startCluster(ctx context.Context, note func(format string, args ...any),
	start func(c *Cluster, running, starting context.Context) error,
) (*Cluster, error) {
	if err := writeConfig(); err != nil {
		return nil, err
	}
	if _, err := output(ctx, "ip", "addr", "replace", serviceAddress+"/32", "dev", "lo"); err != nil {
		return nil, err
	}
	config, err := clientcmd.BuildConfigFromFlags("", KubeconfigPath)
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig: %w", err)
	}
	config.QPS = -1 // no limit
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	running, cancel := context.WithCancel(ctx)
	c := &Cluster{note: note, client: client, cancel: cancel}
	starting, done := context.WithTimeout(ctx, startWithin)
	defer done()
	if err := start(c, running, starting); err != nil {
		return nil, errors.Join(err, c.DumpLogs(ctx, os.Stderr), c.Stop())
	}
	return c, nil
}

// start brings the cluster up: the components live as long as running, the waits as long as starting.
func (c *Cluster) start(running, starting context.Context) error {
	if err := c.launch(running, first()); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(starting)
	group.Go(func() error {
		if err := WaitFor(ctx, "containerd", pollFast, c.check(dialContainerd)); err != nil {
			return err
		}
		images, err := filepath.Glob(testbed.GuestImages + "/*.tar")
		if err != nil {
			return fmt.Errorf("list the images: %w", err)
		}
		for _, image := range images {
			if err := c.ImportImage(ctx, image); err != nil {
				return err
			}
		}
		c.note("images imported")
		return nil
	})
	group.Go(func() error {
		if err := WaitFor(ctx, "the API server to answer", pollFast, c.check(c.get("/livez/ping"))); err != nil {
			return err
		}
		c.note("the API server answers")
		if err := c.launch(running, second()); err != nil {
			return err
		}
		if err := WaitFor(ctx, "the API server to be ready", pollFast, c.check(c.get("/readyz"))); err != nil {
			return err
		}
		c.note("the API server is ready")
		if err := c.launch(running, third(controllers)); err != nil {
			return err
		}
		// before the controller has made it, no pod of its namespace is admitted
		if err := WaitFor(ctx, "the default service account", pollSlow, c.check(c.serviceAccount)); err != nil {
			return err
		}
		if err := WaitFor(ctx, "the node to be ready", pollFast, c.check(c.nodeReady)); err != nil {
			return err
		}
		c.note("the node is ready")
		return nil
	})
	return group.Wait()
}

func (c *Cluster) launch(ctx context.Context, components []component) error {
	for _, it := range components {
		start := func() (*process, error) {
			return startProcess(ctx, testbed.GuestLogs, componentEnv, it.name, it.program, it.args...)
		}
		p, err := start()
		if err != nil {
			return err
		}
		p.again = start
		c.mu.Lock()
		c.components = append(c.components, p)
		c.mu.Unlock()
	}
	return nil
}

// check makes a Check out of a call that fails until all is well; it fails for good when a component has ended.
func (c *Cluster) check(try func(ctx context.Context) error) Check {
	return func(ctx context.Context) (bool, string, error) {
		err := try(ctx)
		if err == nil {
			return true, "", nil
		}
		return false, err.Error(), c.Alive()
	}
}

// Alive returns an error for each component that has ended by itself.
func (c *Cluster) Alive() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []error
	for _, p := range c.components {
		all = append(all, p.alive())
	}
	return errors.Join(all...)
}

func dialContainerd(ctx context.Context) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", containerdSock)
	if err != nil {
		return err
	}
	return conn.Close()
}

func (c *Cluster) get(path string) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		body, err := c.client.Discovery().RESTClient().Get().AbsPath(path).Timeout(5 * time.Second).DoRaw(ctx)
		if err != nil {
			return fmt.Errorf("%w: %s", err, body)
		}
		return nil
	}
}

func (c *Cluster) serviceAccount(ctx context.Context) error {
	_, err := c.client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
	return err
}

func (c *Cluster) nodeReady(ctx context.Context) error {
	node, err := c.client.CoreV1().Nodes().Get(ctx, NodeName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if len(node.Spec.Taints) > 0 {
		return fmt.Errorf("the node has the taint %s", node.Spec.Taints[0].Key)
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue {
			return nil
		} else if condition.Type == corev1.NodeReady {
			return errors.New(condition.Message)
		}
	}
	return errors.New("the node has no Ready condition yet")
}
