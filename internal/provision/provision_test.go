package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"sharevol.dev/sharevol/internal/cluster"
	"sharevol.dev/sharevol/internal/cluster/clustertest"
	"sharevol.dev/sharevol/internal/share"
	"sharevol.dev/sharevol/internal/share/dirs"
	"sharevol.dev/sharevol/internal/share/sharetest"
	"sharevol.dev/sharevol/internal/volume"
)

const (
	driver    = clustertest.Driver
	clusterID = "11111111-1111-1111-1111-111111111111"
)

var ctx = context.Background()

// fixture is a Provisioner with one of its names.
type fixture struct {
	*Provisioner
	format cluster.Format
	shares *sharetest.Shares
	client *fake.Clientset
}

// Provision is Provisioner.Provision for the fixture's name.
func (f fixture) Provision(ctx context.Context, r Request) (*v1.PersistentVolume, error) {
	return f.Provisioner.Provision(ctx, f.format, r)
}

// Delete is Provisioner.Delete for the fixture's name.
func (f fixture) Delete(ctx context.Context, pv *v1.PersistentVolume) error {
	return f.Provisioner.Delete(ctx, f.format, pv)
}

// newFixture is a provisioner of a cluster that has these objects.
func newFixture(t *testing.T, objects ...runtime.Object) fixture {
	t.Helper()
	return fixtureWith(t, sharetest.New(t), objects...)
}

func fixtureWith(t *testing.T, shares *sharetest.Shares, objects ...runtime.Object) fixture {
	t.Helper()
	f := fixtureOf(t, clusterID, shares, map[string]string{"nfs.example.com": "192.0.2.1", "other.example.com": "192.0.2.2"},
		cluster.Names{Driver: driver, DefaultOnDelete: volume.Delete, Adopted: []volume.Adoption{clustertest.Adopted}}, objects...)
	f.shares = shares
	return f
}

// fixtureOf is a provisioner of a cluster with some objects, and these servers.
func fixtureOf(t *testing.T, clusterUID string, shares share.Doer, addresses map[string]string, names cluster.Names, objects ...runtime.Object) fixture {
	t.Helper()
	client := fake.NewClientset(objects...)
	known, err := cluster.New(client, names)
	check(t, err)
	known.LookupHost = lookupIn(addresses)
	running, stop := context.WithCancel(ctx)
	t.Cleanup(stop)
	known.Start(running)
	if !known.Filled(running) {
		t.Fatal("the caches are not filled")
	}
	p := New(Options{Cluster: known, ClusterID: clusterUID, Shares: shares, Client: client})
	return fixture{Provisioner: p, format: known.Formats()[0], client: client}
}

// deleteSaved is Delete of a volume that the API server has meanwhile.
func deleteSaved(p fixture, pv *v1.PersistentVolume) error {
	volumes := p.options.Client.CoreV1().PersistentVolumes()
	if _, err := volumes.Create(ctx, pv, metav1.CreateOptions{}); err != nil {
		return err
	}
	if err := done(p.Delete(ctx, pv)); err != nil {
		return errors.Join(err, volumes.Delete(ctx, pv.Name, metav1.DeleteOptions{}))
	}
	return nil
}

// done is the error of a Delete that is no success: the volume is gone now, or was before.
func done(err error) error {
	if errors.Is(err, ErrGone) {
		return nil
	}
	return err
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// mountSecrets are those that the classes of the tests name.
func mountSecrets() []runtime.Object {
	secret := func(namespace, name, options string) runtime.Object {
		return &v1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: map[string][]byte{"mountOptions": []byte(options)}}
	}
	return []runtime.Object{secret("storage", "nfs-team-a", "sec=krb5,timeo=50"), secret("default", "mount-options", "hard")}
}

func request1() Request { return requestFor("1") }

// requestFor is for the claim with the UID uid, of a class that needs nothing special.
func requestFor(uid string) Request {
	return Request{Name: VolumePrefix + uid, Class: clustertest.Class(), Claim: clustertest.Claim()}
}

func TestProvisionIsIdempotent(t *testing.T) {
	f := newFixture(t)
	first, err1 := f.Provision(ctx, request1())
	second, err2 := f.Provision(ctx, request1())
	if err1 != nil || err2 != nil || fmt.Sprint(first) != fmt.Sprint(second) {
		t.Errorf("%v, %v:\n%v\n%v", err1, err2, first, second)
	}
}

// csi-driver-nfs #260, #534, #1143: the provisioner mounts with the class's and the
// secret's options, and with the same at delete.
func TestMountOptionsComeFromClassAndSecret(t *testing.T) {
	f := newFixture(t, mountSecrets()...)
	options := request1()
	options.Class.Parameters["csi.storage.k8s.io/provisioner-secret-name"] = "nfs-team-a"
	options.Class.Parameters["csi.storage.k8s.io/provisioner-secret-namespace"] = "storage"
	pv, err := f.Provision(ctx, options)
	check(t, err)
	want := []string{"sec=krb5", "timeo=50", "nfsvers=4.2", "hard"} // the last one counts
	if got := f.shares.Ref("nfs.example.com:/srv/volumes/pvc-1").MountOptions; !slices.Equal(got, want) {
		t.Errorf("made with %q", got)
	}
	if text := pv.String(); strings.Contains(text, "krb5") {
		t.Errorf("the volume shows the secret: %s", text)
	}
	ref, err := f.ref(ctx, volume.Share{}, pv.Spec.MountOptions, cluster.DeletionSecret(pv))
	if err != nil || !slices.Equal(ref.MountOptions, want) {
		t.Errorf("removed with %q, %v", ref.MountOptions, err)
	}
	check(t, f.client.CoreV1().Secrets("storage").Delete(ctx, "nfs-team-a", metav1.DeleteOptions{}))
	// Without the secret, which went with its namespace, the volume's own options must do.
	ref, err = f.deletionRef(ctx, cluster.Existing{MountOptions: pv.Spec.MountOptions}, pv)
	if err != nil || !slices.Equal(ref.MountOptions, want[2:]) {
		t.Errorf("without the secret: %q, %v", ref.MountOptions, err)
	}
	f.client.PrependReactor("get", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, "nfs-team-a", nil)
	})
	if err := f.Delete(ctx, pv); err == nil || !strings.Contains(err.Error(), "secret nfs-team-a in namespace storage") {
		t.Errorf("where the secret may not be read: %v", err)
	}
}

func TestNoErrorShowsASecret(t *testing.T) {
	f := newFixture(t, &v1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "s", Name: "s"}, Data: map[string][]byte{"mountOptions": []byte("hard,password=hunter2 x,addr=198.51.100.7")}})
	_, err := f.ref(ctx, volume.Share{}, nil, &volume.SecretRef{Namespace: "s", Name: "s"})
	if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "198.51.100.7") {
		t.Errorf("got %v", err)
	}
}

// A volume that the cluster has at the same place, made by whatever driver, whose
// data is still there, keeps a claim waiting; a cache that is behind does not.
func TestProvisionWaitsForTheVolumeAtItsPlace(t *testing.T) {
	old := &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "old"}, Spec: v1.PersistentVolumeSpec{
		PersistentVolumeSource: v1.PersistentVolumeSource{NFS: &v1.NFSVolumeSource{Server: "NFS.example.com", Path: "/srv/volumes/pvc-1/"}},
	}}
	f := newFixture(t, old)
	_, err := f.Provision(ctx, request1())
	if !errors.Is(err, dirs.ErrUntouched) || !strings.Contains(err.Error(), "volume old") {
		t.Fatal(err)
	}
	if made := f.shares.Dirs(); len(made) > 0 {
		t.Errorf("made %v", made)
	}
	check(t, f.client.CoreV1().PersistentVolumes().Delete(ctx, "old", metav1.DeleteOptions{}))
	if _, err := f.Provision(ctx, request1()); err != nil {
		t.Error(err)
	}
}

// The wrong file system in the place of the share gets no new volumes.
func TestProvisionWantsTheShareOfTheOtherVolumes(t *testing.T) {
	shares := sharetest.New(t)
	pv, err := fixtureWith(t, shares).Provision(ctx, request1())
	check(t, err)
	f := fixtureWith(t, shares, pv)
	shares.SetID(volume.Share{Server: "nfs.example.com", Path: "/srv/volumes"}, strings.Repeat("A", 26))
	if _, err := f.Provision(ctx, requestFor("2")); !errors.Is(err, dirs.ErrOtherShare) {
		t.Errorf("got %v", err)
	}
}

// A stop is no failure of the claim or volume: no event. Nor is a lost lease.
func TestWhatIsStoppedIsSilent(t *testing.T) {
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	f := fixtureWith(t, failing(t, fmt.Errorf("%w: %w", dirs.ErrUntouched, stopped.Err())))
	if _, err := f.Provision(stopped, request1()); err != ErrStopping {
		t.Error(err)
	}
	f = newFixture(t)
	pv, err := f.Provision(ctx, request1())
	check(t, err)
	f.shares.Fail(context.Canceled)
	_, err = f.client.CoreV1().PersistentVolumes().Create(ctx, pv, metav1.CreateOptions{})
	check(t, err)
	if err := f.Delete(stopped, pv); err != ErrStopping {
		t.Errorf("got %v", err)
	}
	f = newFixture(t)
	f.options.Fence = func() error { return errors.New("lost") }
	if _, err := f.Provision(ctx, request1()); err != ErrStopping {
		t.Errorf("without the lease: %v", err)
	}
	if err := f.Delete(ctx, pv); err != ErrStopping {
		t.Errorf("without the lease: %v", err)
	}
}

func TestDrainWaitsForCallsAndRefusesNewOnes(t *testing.T) {
	f := fixtureWith(t, blocked(t))
	done := make(chan error, 1)
	go func() {
		// The controller's context ends with SIGTERM; what has begun ends between two steps.
		stopped, cancel := context.WithCancel(ctx)
		cancel()
		_, err := f.Provision(stopped, request1())
		done <- err
	}()
	for deadline := time.Now().Add(10 * time.Second); f.shares.Waiting() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the call does not begin")
		}
	}
	short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	if err := f.Drain(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("drained while a call runs: %v", err)
	}
	if _, err := f.Provision(ctx, request1()); err != ErrStopping {
		t.Errorf("a new call: %v", err)
	}
	if err := f.Delete(ctx, &v1.PersistentVolume{}); err != ErrStopping {
		t.Errorf("a new call: %v", err)
	}
	close(f.shares.Block)
	check(t, f.Drain(ctx))
	if err := <-done; err != ErrStopping {
		t.Errorf("the call that ran: %v", err)
	}
}

// failing are shares on which everything fails with err.
func failing(t *testing.T, err error) *sharetest.Shares {
	shares := sharetest.New(t)
	shares.Fail(err)
	return shares
}

// blocked are shares on which everything waits for Block.
func blocked(t *testing.T) *sharetest.Shares {
	shares := sharetest.New(t)
	shares.Block = make(chan struct{})
	return shares
}
