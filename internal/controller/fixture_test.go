package controller

import (
	"context"
	"slices"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"sharevol.dev/sharevol/internal/cluster"
	"sharevol.dev/sharevol/internal/cluster/clustertest"
	"sharevol.dev/sharevol/internal/provision"
	"sharevol.dev/sharevol/internal/share/sharetest"
	"sharevol.dev/sharevol/internal/volume"
)

const (
	driver       = clustertest.Driver
	csiDriverNFS = "nfs.csi.k8s.io"
	clusterID    = "11111111-1111-1111-1111-111111111111"
)

var ctx = context.Background()

// driverNames are those of a provisioner that has adopted nothing; adoptedNames those of one
// that stands in for csi-driver-nfs and for clustertest.Adopted.
var (
	driverNames  = cluster.Names{Driver: driver, DefaultOnDelete: volume.Delete}
	adoptedNames = cluster.Names{Driver: csiDriverNFS, DefaultOnDelete: volume.Delete, Adopted: []volume.Adoption{clustertest.Adopted}}
)

// fixture is a controller with all its parts, on shares in local folders.
type fixture struct {
	*Controller
	client    *fake.Clientset
	shares    *sharetest.Shares
	cluster   *cluster.Cluster
	recovered chan struct{}
}

// newFixture makes a controller, which does not run.
func newFixture(t *testing.T, shares *sharetest.Shares, names cluster.Names, workers int, objects ...runtime.Object) fixture {
	t.Helper()
	return fixtureOf(t, fake.NewClientset(objects...), shares, names, workers)
}

func fixtureOf(t *testing.T, client *fake.Clientset, shares *sharetest.Shares, names cluster.Names, workers int) fixture {
	t.Helper()
	f := fixture{client: client, shares: shares, recovered: make(chan struct{}, 1)}
	var err error
	f.cluster, err = cluster.New(client, names)
	check(t, err)
	f.Controller = New(Options{
		Client: client, Cluster: f.cluster, Shares: shares, Workers: workers, Recovered: f.recovered,
		Provisioner: provision.New(provision.Options{Cluster: f.cluster, ClusterID: clusterID, Shares: shares, Client: client}),
	})
	return f
}

// run runs the controller until the test ends, and waits then for the event of each
// volume that it saved, the last that the library does for one: Run does not wait for
// the library, and what makes an event reads the scheme that the next test's controller
// adds its types to. Reactors are the client's before this: the controller may have done
// everything before the next statement of the test.
func (f fixture) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	f.cluster.Start(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		draining, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		check(t, f.options.Provisioner.Drain(draining))
		waitUntil(t, "an event for each saved volume", func() bool { return told(t, f.client) })
	})
}

// adapter returns the adapter of the driver's own name, and the cluster is filled.
func (f fixture) adapter(t *testing.T) *adapter {
	t.Helper()
	f.cluster.Start(t.Context())
	if !f.cluster.Filled(t.Context()) {
		t.Fatal("the caches are not filled")
	}
	return &adapter{format: f.cluster.Formats()[0], options: f.options, workers: newWorkers(1), retries: newRetryPolicy(newLimits().retries)}
}

// asked is a claim with its class, as the library hands them over.
func asked() (*v1.PersistentVolumeClaim, runtime.Object) {
	return clustertest.Claim(), clustertest.Class()
}

// told reports whether each volume that was saved has its event.
func told(t *testing.T, client *fake.Clientset) bool {
	events, err := client.CoreV1().Events(v1.NamespaceAll).List(context.Background(), metav1.ListOptions{})
	check(t, err)
	for _, action := range client.Actions() {
		create, ok := action.(clienttesting.CreateAction)
		if !ok || !action.Matches("create", "persistentvolumes") {
			continue
		}
		pv := create.GetObject().(*v1.PersistentVolume)
		if _, err := client.Tracker().Get(action.GetResource(), "", pv.Name); err != nil {
			continue // refused
		}
		if !slices.ContainsFunc(events.Items, func(e v1.Event) bool {
			return e.Reason == "ProvisioningSucceeded" && e.InvolvedObject.UID == pv.Spec.ClaimRef.UID
		}) {
			return false
		}
	}
	return true
}

func waitUntil(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
