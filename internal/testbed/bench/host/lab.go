package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"sharevol.dev/sharevol/internal/testbed"
	"sharevol.dev/sharevol/internal/testbed/bench/report"
	"sharevol.dev/sharevol/internal/testbed/controlplane"
	"sharevol.dev/sharevol/internal/testbed/guest"
	"sharevol.dev/sharevol/internal/volume"
)

const (
	// setUpWithin bounds what comes before the first measurement: building Kubernetes is the longest.
	setUpWithin = 40 * time.Minute
	namespace   = "bench"
	server      = "live.bench.example"
	deadServer  = "dead.bench.example"
	sharePath   = "/srv/volumes"
	// The classes: of the live share, of the dead one, and of volumes that are made by hand.
	liveClass, deadClass, handClass = "live", "dead", "by-hand"
)

// lab is a control plane, and the programs that are measured on it, of which one runs at a time.
type lab struct {
	numbers
	options Options
	host    *testbed.Host
	dir     string
	share   string // a folder in memory: a server's disk is on another machine than the API server
	unshare func() error
	cluster *controlplane.ControlPlane
	client  kubernetes.Interface // of an administrator, without limits
	release func(failed bool) error
	samples *report.Samples
	// sharevol, and what it is measured against.
	ours, floor, library *variant
	// sharevol with a second share, which is dead; and the same, but without claims there.
	beside, alone *variant
	serial        int // of the last set of claims
}

func newLab(ctx context.Context, options Options) (l *lab, err error) {
	host, err := testbed.NewHost(testbed.NewProgress(os.Stderr))
	if err != nil {
		return nil, err
	}
	starting, cancel := context.WithTimeoutCause(ctx, setUpWithin, fmt.Errorf("not ready after %s", setUpWithin))
	defer cancel()
	l = &lab{numbers: long, options: options, host: host, samples: report.NewSamples(options.Dir)}
	if options.Short {
		l.numbers = short
	}
	if options.Runs > 0 {
		l.runs = options.Runs
	}
	if l.dir, l.release, err = host.RunFolder(starting, "bench"); err != nil {
		return nil, err
	}
	if err := l.start(ctx, starting); err != nil {
		return nil, errors.Join(err, l.close(true))
	}
	return l, nil
}

// start builds and starts what a lab has. What lives longer than the start ends with ctx.
func (l *lab) start(ctx, starting context.Context) error {
	for _, dir := range []string{"logs", "cluster", "dead"} {
		if err := os.Mkdir(l.path(dir), 0o755); err != nil {
			return err
		}
	}
	var err error
	if l.share, l.unshare, err = inMemory(); err != nil {
		return err
	}
	group, building := errgroup.WithContext(starting)
	group.Go(func() error { return l.build(building) })
	group.Go(func() (err error) {
		options := controlplane.Options{Name: "bench", Dir: l.path("cluster"), Logs: l.path("logs"), Measured: true}
		if l.cluster, err = controlplane.Start(ctx, l.host, options); err != nil {
			return err
		}
		l.client = l.cluster.Client()
		return l.cluster.Install(building)
	})
	if err := group.Wait(); err != nil {
		return err
	}
	return l.populate(starting)
}

// populate makes the namespace and the classes.
func (l *lab) populate(ctx context.Context) error {
	for _, name := range []string{namespace, fillNamespace} {
		if _, err := l.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	for name, parameters := range map[string]map[string]string{
		liveClass: {"server": server, "share": sharePath},
		deadClass: {"server": deadServer, "share": sharePath},
		handClass: nil,
	} {
		class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: volume.DefaultDriverName, Parameters: parameters}
		if name == handClass {
			class.Provisioner = "kubernetes.io/no-provisioner"
		}
		if _, err := l.client.StorageV1().StorageClasses().Create(ctx, class, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	return nil
}

func (l *lab) path(elem ...string) string { return filepath.Join(append([]string{l.dir}, elem...)...) }

// close ends all that runs, and removes the lab's folder.
func (l *lab) close(failed bool) error {
	var all []error
	for _, v := range []*variant{l.ours, l.floor, l.library, l.beside, l.alone} {
		if v != nil {
			all = append(all, v.Close())
		}
	}
	if l.cluster != nil {
		all = append(all, l.cluster.Stop())
	}
	if l.unshare != nil {
		all = append(all, l.unshare())
	}
	return errors.Join(append(all, l.release(failed))...)
}

// refresh writes a kubeconfig with a new token of the provisioner's service account, of which each is valid
// for an hour, to where the programs read it.
func (l *lab) refresh(ctx context.Context) error {
	made, err := l.cluster.ServiceAccountKubeconfig(ctx, guest.SystemNamespace, "sharevol-provisioner")
	if err != nil {
		return err
	}
	return os.Rename(made, l.kubeconfig())
}

func (l *lab) kubeconfig() string { return l.path("kubeconfig") }
