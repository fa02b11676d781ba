package replicas

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"

	"sharevol.dev/sharevol/internal/testbed/controlplane"
)

// The names under which the two peers are installed by their own instructions.
const (
	csiDriverNFS  = "nfs.csi.k8s.io"
	nfsSubdir     = "cluster.local/nfs-subdir-external-provisioner"
	nfsSubdirLock = "cluster.local-nfs-subdir-external-provisioner"
	oldShare      = "/srv/k8s"

	provisionedBy = "pv.kubernetes.io/provisioned-by"
	ourFinalizer  = "external-provisioner.volume.kubernetes.io/finalizer"
)

// peers is a place with what the two peers have left: classes and volumes, whose claims are gone, with data.
type peers struct {
	*place
	old string // the folder that is the share of nfs-subdir-external-provisioner
}

func newPeers(ctx context.Context, t *testing.T, l *lab) *peers {
	t.Helper()
	p := &peers{place: newPlace(ctx, t, l, l.cluster, "adopt", "adopt"), old: filepath.Join(l.dir, "share-adopt-old")}
	check(t, os.MkdirAll(p.old, 0o755))
	for _, class := range []storagev1.StorageClass{
		{ObjectMeta: metav1.ObjectMeta{Name: "nfs-csi"}, Provisioner: csiDriverNFS, Parameters: map[string]string{
			"server": p.server, "share": sharePath, "subDir": "${pvc.metadata.namespace}/${pvc.metadata.name}", "mountPermissions": "0",
		}},
		{ObjectMeta: metav1.ObjectMeta{Name: "nfs-client"}, Provisioner: nfsSubdir, Parameters: map[string]string{"pathPattern": "${.PVC.namespace}/${.PVC.name}"}},
		{ObjectMeta: metav1.ObjectMeta{Name: "nfs-delete"}, Provisioner: nfsSubdir, Parameters: map[string]string{"archiveOnDelete": "false"}},
	} {
		_, err := p.client.StorageV1().StorageClasses().Create(ctx, &class, metav1.CreateOptions{})
		check(t, err)
	}
	return p
}

// in and was are directories on the share of csi-driver-nfs and on the one of nfs-subdir-external-provisioner.
func (p *peers) in(dir string) string  { return filepath.Join(p.share, dir) }
func (p *peers) was(dir string) string { return filepath.Join(p.old, dir) }

func (p *peers) adopter(t *testing.T, name string) *controlplane.Provisioner {
	t.Helper()
	return p.provisioner(t, name, p.lab.program, "--driver-name="+csiDriverNFS,
		"--adopt-provisioner="+nfsSubdir+"="+p.server+":"+oldShare, "--premounted="+p.server+":"+oldShare+"="+p.old)
}

// put makes a volume whose claim is gone, with a file in its directory.
func (p *peers) put(ctx context.Context, t *testing.T, name, provisioner, class, dir string, source corev1.PersistentVolumeSource, finalizers ...string) {
	t.Helper()
	if dir != "" {
		check(t, os.MkdirAll(dir, 0o755))
		check(t, os.WriteFile(filepath.Join(dir, marker), []byte(name), 0o600))
	}
	_, err := p.client.CoreV1().PersistentVolumes().Create(ctx, &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: finalizers, Annotations: map[string]string{
			provisionedBy: provisioner,
			// csi-provisioner writes both, empty ones too.
			"volume.kubernetes.io/provisioner-deletion-secret-name": "", "volume.kubernetes.io/provisioner-deletion-secret-namespace": "",
		}},
		Spec: corev1.PersistentVolumeSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}, Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
			ClaimRef:                      &corev1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: p.name, Name: "gone-" + name, UID: types.UID("gone-" + name)},
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete, StorageClassName: class, PersistentVolumeSource: source,
		},
	}, metav1.CreateOptions{})
	check(t, err)
}

func csiSource(handle string, attributes ...string) corev1.PersistentVolumeSource {
	m := map[string]string{"storage.kubernetes.io/csiProvisionerIdentity": "1700000000000-8081-" + csiDriverNFS}
	for i := 0; i < len(attributes); i += 2 {
		m[attributes[i]] = attributes[i+1]
	}
	return corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: csiDriverNFS, VolumeHandle: handle, VolumeAttributes: m}}
}

func (p *peers) nfsSource(path string) corev1.PersistentVolumeSource {
	return corev1.PersistentVolumeSource{NFS: &corev1.NFSVolumeSource{Server: p.server, Path: path}}
}

// leftAlone waits for the event that says why each of some volumes is left alone.
func (p *peers) leftAlone(ctx context.Context, t *testing.T, volumes map[string]string) {
	t.Helper()
	for name, why := range volumes {
		check(t, waitFor(ctx, "an event of "+name, time.Minute, func(ctx context.Context) (bool, string, error) {
			messages, err := p.warnings(ctx, "default", name)
			all := strings.Join(messages, "\n")
			return strings.Contains(all, why), all, err
		}))
	}
}

func (p *peers) volumeGone(ctx context.Context, name string) error {
	return waitFor(ctx, "the end of volume "+name, time.Minute, func(ctx context.Context) (bool, string, error) {
		pv, err := p.client.CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return true, "", nil
		}
		messages, _ := p.warnings(ctx, "default", name)
		return false, fmt.Sprintf("%s %q %s", pv.Status.Phase, pv.Finalizers, strings.Join(messages, "; ")), err
	})
}

// dropVolume is how a user gets rid of a volume that its provisioner leaves alone.
func (p *peers) dropVolume(ctx context.Context, name string) error {
	_, err := p.client.CoreV1().PersistentVolumes().Patch(ctx, name, types.MergePatchType, []byte(`{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}`), metav1.PatchOptions{})
	return errors.Join(err, p.client.CoreV1().PersistentVolumes().Delete(ctx, name, metav1.DeleteOptions{}), p.volumeGone(ctx, name))
}

// installRBAC applies the rights that the migration's instructions name.
func installRBAC(ctx context.Context, t *testing.T, p *peers) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(p.lab.host.Root(), "manifests", "overlays", "from-nfs-subdir", "rbac.yaml"))
	check(t, err)
	documents := utilyaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(data)))
	buffer := make([]byte, 1<<16)
	for {
		n, err := documents.Read(buffer)
		if errors.Is(err, io.EOF) {
			return
		}
		check(t, err)
		object, _, err := scheme.Codecs.UniversalDeserializer().Decode(buffer[:n], nil, nil)
		check(t, err)
		switch o := object.(type) {
		case *rbacv1.ClusterRole:
			_, err = p.client.RbacV1().ClusterRoles().Create(ctx, o, metav1.CreateOptions{})
		case *rbacv1.ClusterRoleBinding:
			_, err = p.client.RbacV1().ClusterRoleBindings().Create(ctx, o, metav1.CreateOptions{})
		default:
			t.Fatalf("%T among the rights", o)
		}
		check(t, err)
	}
}
