package replicas

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"sharevol.dev/sharevol/internal/testbed/controlplane"
	"sharevol.dev/sharevol/internal/testbed/guest"
)

const (
	sharePath = "/srv/volumes"
	podName   = "POD_NAME" // in the environment of a provisioner: under which it holds the Lease
	poll      = 50 * time.Millisecond
)

// kind is what a class asks for.
type kind struct{ name, onDelete, subDir string }

// The kinds of classes that tests use where a test does not say otherwise.
var (
	plain   = kind{"plain", "delete", "${pv.metadata.name}"}
	nested  = kind{"nested", "delete", "deep/${pvc.metadata.namespace}/${pvc.metadata.name}/${pv.metadata.name}"}
	archive = kind{"archive", "archive", "old/${pvc.metadata.namespace}/${pvc.metadata.name}"}
	retain  = kind{"retain", "retain", "stay/${pvc.metadata.name}-${pv.metadata.name}"}

	allKinds = []kind{plain, nested, archive, retain}
)

// path is the volume directory of a claim.
func (k kind) path(namespace, claim, volume string) string {
	return strings.NewReplacer("${pvc.metadata.namespace}", namespace, "${pvc.metadata.name}", claim, "${pv.metadata.name}", volume).Replace(k.subDir)
}

// place is what one test has for itself in a cluster: a namespace, a driver name, classes, and a share.
type place struct {
	lab        *lab
	cluster    *controlplane.ControlPlane
	client     kubernetes.Interface
	name       string // of the namespace; all other names derive from it
	server     string
	share      string // the local folder
	kubeconfig string // of the provisioner's service account
}

// newPlace makes a place. The folder that is its share may be that of another cluster's place.
func newPlace(ctx context.Context, t *testing.T, l *lab, cluster *controlplane.ControlPlane, name, share string, kinds ...kind) *place {
	t.Helper()
	kubeconfig, err := cluster.ServiceAccountKubeconfig(ctx, guest.SystemNamespace, "sharevol-provisioner")
	check(t, err)
	p := &place{
		lab: l, cluster: cluster, client: cluster.Client(), name: name, server: name + ".example.com",
		share: filepath.Join(l.dir, "share-"+share), kubeconfig: kubeconfig,
	}
	check(t, os.MkdirAll(p.share, 0o755))
	_, err = p.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	check(t, err)
	for _, k := range kinds {
		_, err := p.client.StorageV1().StorageClasses().Create(ctx, &storagev1.StorageClass{
			ObjectMeta:  metav1.ObjectMeta{Name: p.class(k)},
			Provisioner: p.driver(),
			Parameters:  map[string]string{"server": p.server, "share": sharePath, "onDelete": k.onDelete, "subDir": k.subDir},
		}, metav1.CreateOptions{})
		check(t, err)
	}
	return p
}

func (p *place) driver() string      { return p.name + ".sharevol.dev" }
func (p *place) class(k kind) string { return p.name + "-" + k.name }

// provisioner prepares a provisioner of this place. It is ended with the test.
func (p *place) provisioner(t *testing.T, name, program string, args ...string) *controlplane.Provisioner {
	t.Helper()
	provisioner, err := controlplane.NewProvisioner(controlplane.ProvisionerOptions{
		Name: p.name + "-" + name, Program: program, Dir: p.lab.dir, Logs: p.lab.logs(),
		Args: append([]string{
			"--kubeconfig=" + p.kubeconfig, "--driver-name=" + p.driver(),
			"--premounted=" + p.server + ":" + sharePath + "=" + p.share,
			"--lease-namespace=" + guest.SystemNamespace, "-v=4",
		}, args...),
		Env: []string{podName + "="}, // else every start has a name of its own
	})
	check(t, err)
	t.Cleanup(func() {
		if err := provisioner.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the end of %s's log:\n%s", provisioner.Name(), tail(provisioner.Log(), 25))
		}
	})
	return provisioner
}

// start starts provisioners, one after the other, each when the one before is ready.
func start(ctx context.Context, t *testing.T, provisioners ...*controlplane.Provisioner) {
	t.Helper()
	for _, p := range provisioners {
		check(t, p.Start(ctx))
		check(t, p.Ready(ctx))
	}
}

// restart stops a provisioner in an orderly way, and starts it again: each start looks through the records.
func restart(ctx context.Context, t *testing.T, p *controlplane.Provisioner) {
	t.Helper()
	stop(ctx, t, p)
	start(ctx, t, p)
}

func stop(ctx context.Context, t *testing.T, p *controlplane.Provisioner) {
	t.Helper()
	check(t, p.Ready(ctx)) // one that has only just started does not listen to signals yet
	state, err := p.Stop(ctx)
	check(t, err)
	if !state.Success() {
		t.Errorf("%s stopped with %s", p.Name(), state)
	}
}

func (p *place) createClaim(ctx context.Context, name string, k kind) (*corev1.PersistentVolumeClaim, error) {
	class := p.class(k)
	return p.client.CoreV1().PersistentVolumeClaims(p.name).Create(ctx, &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &class,
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany},
			Resources:        corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")}},
		},
	}, metav1.CreateOptions{})
}

// waitFor waits for a check, some time at most.
func waitFor(ctx context.Context, what string, within time.Duration, check guest.Check) error {
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("not within %s", within))
	defer cancel()
	return guest.WaitFor(ctx, what, poll, check)
}

// warnings are the messages of the Warning events on a claim of this place or, in the default namespace, a volume.
func (p *place) warnings(ctx context.Context, namespace, object string) ([]string, error) {
	events, err := p.client.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{FieldSelector: "type=Warning,involvedObject.name=" + object})
	if err != nil {
		return nil, err
	}
	var messages []string
	for _, event := range events.Items {
		messages = append(messages, event.Reason+": "+event.Message)
	}
	return messages, nil
}

// tail returns the last lines of a file.
func tail(path string, count int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-count):], "\n")
}
