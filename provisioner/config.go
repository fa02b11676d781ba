package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"sharevol.dev/sharevol/internal/cli"
	"sharevol.dev/sharevol/internal/cluster"
	"sharevol.dev/sharevol/internal/volume"
)

// serviceAccountNamespace is where a pod finds its namespace.
const serviceAccountNamespace = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// Config is what the command line sets.
type Config struct {
	DriverName      string
	DefaultOnDelete onDelete
	Premounted      premounted
	Adopted         adopted
	AdoptNamespace  string
	Kubeconfig      string
	KubeAPIQPS      int
	KubeAPIBurst    int
	WorkerThreads   int
	LeaderElect     bool
	LeaseNamespace  string
	LeaseName       string
	HTTPAddress     string
	Profile         bool
}

// AddFlags adds the program's flags with their defaults.
func (c *Config) AddFlags(flags *flag.FlagSet) {
	flags.StringVar(&c.DriverName, "driver-name", volume.DefaultDriverName, "`name` that classes give as their provisioner and volumes as their CSI driver")
	c.DefaultOnDelete = onDelete(volume.Delete)
	flags.Var(&c.DefaultOnDelete, "default-on-delete", "`policy` of classes that name none: delete, retain or archive")
	flags.Var(&c.Premounted, "premounted", "`SERVER:/SHARE=/PATH`: a share that is mounted at a path already, by kubelet for example; may be repeated. Then nothing is mounted, other shares are not served, and no capability is needed")
	flags.Var(&c.Adopted, "adopt-provisioner", "`NAME=SERVER:/SHARE`: an nfs-subdir-external-provisioner, and the share that it serves, whose classes and volumes are taken over; may be repeated. It must not run any more")
	flags.StringVar(&c.AdoptNamespace, "adopt-namespace", "", "`namespace` of the adopted provisioners, where alone it is looked whether they still run; when empty all, and whoever may write Leases in one can feign that they do")
	flags.StringVar(&c.Kubeconfig, "kubeconfig", "", "`path` of a kubeconfig; the pod's service account when empty")
	c.KubeAPIQPS, c.KubeAPIBurst, c.WorkerThreads = 500, 1000, 32
	cli.Int(flags, &c.KubeAPIQPS, "kube-api-qps", 1, 10000, "`requests` a second to the API server, sustained")
	cli.Int(flags, &c.KubeAPIBurst, "kube-api-burst", 1, 100000, "`requests` at once to the API server, at least kube-api-qps")
	cli.Int(flags, &c.WorkerThreads, "worker-threads", 1, 1000, "`number` of claims, and of deletions, worked on at a time")
	flags.BoolVar(&c.LeaderElect, "leader-elect", true, "work only while holding a Lease, so that several replicas can run")
	flags.StringVar(&c.LeaseNamespace, "lease-namespace", "", "`namespace` of the Lease; the pod's own when empty")
	flags.StringVar(&c.LeaseName, "lease-name", "", "`name` of the Lease; the driver name when empty. Provisioners of one driver with different premounted shares need one each")
	flags.StringVar(&c.HTTPAddress, "http-address", "127.0.0.1:29801", "`address` that serves /healthz, /readyz and /metrics")
	flags.BoolVar(&c.Profile, "profile", false, "serve profiles of the running program below /debug/pprof/ at the --http-address, too, to whoever reaches that")
}

// Validate names every fault that no single flag shows, and fills in what is left empty.
func (c *Config) Validate() error {
	errs := []error{cli.CheckDriverName(c.DriverName), cli.CheckAddress("http-address", c.HTTPAddress)}
	if c.KubeAPIBurst < c.KubeAPIQPS {
		errs = append(errs, fmt.Errorf("--kube-api-burst=%d: must be at least --kube-api-qps=%d", c.KubeAPIBurst, c.KubeAPIQPS))
	}
	if c.Kubeconfig != "" {
		if _, err := os.Stat(c.Kubeconfig); err != nil {
			errs = append(errs, fmt.Errorf("--kubeconfig=%q: must be a readable file: %w", c.Kubeconfig, err))
		}
	}
	switch {
	case c.AdoptNamespace == "":
	case len(c.Adopted) == 0:
		errs = append(errs, fmt.Errorf("--adopt-namespace=%q: means nothing without --adopt-provisioner", c.AdoptNamespace))
	case len(validation.IsDNS1123Label(c.AdoptNamespace)) > 0:
		errs = append(errs, fmt.Errorf("--adopt-namespace=%q: must be the name of a namespace", c.AdoptNamespace))
	}
	for _, adoption := range c.Adopted {
		if adoption.Name == c.DriverName {
			errs = append(errs, fmt.Errorf("--adopt-provisioner=%s=...: must not be the --driver-name", adoption.Name))
		}
	}
	if c.LeaderElect {
		errs = append(errs, c.validateLease())
	}
	return errors.Join(errs...)
}

func (c *Config) validateLease() error {
	if c.LeaseName == "" {
		c.LeaseName = c.DriverName
	}
	if c.LeaseNamespace == "" {
		// Not readable outside a pod, where the flag must be given.
		namespace, _ := os.ReadFile(serviceAccountNamespace)
		c.LeaseNamespace = strings.TrimSpace(string(namespace))
	}
	var errs []error
	for _, adoption := range c.Adopted {
		if adoption.Lock() == c.LeaseName {
			errs = append(errs, fmt.Errorf("--lease-name=%q: is the name of the lock of %s, which must be told from ours", c.LeaseName, adoption.Name))
		}
	}
	if len(validation.IsDNS1123Subdomain(c.LeaseName)) > 0 {
		errs = append(errs, fmt.Errorf("--lease-name=%q: must be a name of lower-case letters, digits, dots and dashes", c.LeaseName))
	}
	if len(validation.IsDNS1123Label(c.LeaseNamespace)) > 0 {
		errs = append(errs, fmt.Errorf("--lease-namespace=%q: must name a namespace outside a pod, or give --leader-elect=false", c.LeaseNamespace))
	}
	return errors.Join(errs...)
}

// onDelete is a policy as a flag.
type onDelete volume.OnDelete

func (o *onDelete) String() string { return string(*o) }

func (o *onDelete) Set(value string) error {
	policy, err := volume.ParseOnDelete(value)
	*o = onDelete(policy)
	return err
}

// adopted are provisioners as a flag.
type adopted []volume.Adoption

func (a *adopted) String() string { return "" }

func (a *adopted) Set(value string) error {
	adoption, err := volume.ParseAdoption(value)
	if err != nil {
		return err
	}
	for _, other := range *a {
		if other.Lock() == adoption.Lock() {
			return fmt.Errorf("%s is given twice", adoption.Name)
		}
	}
	*a = append(*a, adoption)
	return nil
}

// locks are the names of the objects by which these provisioners elect their leaders.
func (a adopted) locks() []string {
	var names []string
	for _, adoption := range a {
		names = append(names, adoption.Lock())
	}
	return names
}

// premounted are the local paths of shares as a flag.
type premounted map[volume.Share]string

func (p *premounted) String() string { return "" }

func (p *premounted) Set(value string) error {
	const form = "must be SERVER:/SHARE=/PATH, for example nfs.example.com:/srv/volumes=/shares/volumes"
	source, path, found := strings.Cut(value, "=/")
	if !found {
		return errors.New(form)
	}
	path = "/" + path
	share, err := volume.ParseShare(source)
	if err != nil {
		return fmt.Errorf("%s: %w", form, err)
	}
	if path != filepath.Clean(path) || path == "/" {
		return fmt.Errorf("%s: the path must be clean, absolute and below /", form)
	}
	if _, again := (*p)[share]; again {
		return fmt.Errorf("share %s is given twice", share)
	}
	if *p == nil {
		*p = premounted{}
	}
	(*p)[share] = path
	return nil
}

// names are those that the program serves.
func (c *Config) names() cluster.Names {
	return cluster.Names{Driver: c.DriverName, DefaultOnDelete: volume.OnDelete(c.DefaultOnDelete), Adopted: c.Adopted}
}
