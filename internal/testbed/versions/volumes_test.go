package versions

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
)

const (
	selectedNode = "volume.kubernetes.io/selected-node"
	doneWithin   = 30 * time.Second
	// stays is how long something is looked at that must not happen; it would within some 100 ms.
	stays = time.Second
)

// class makes a StorageClass, changed as wanted.
func (c *cluster) class(ctx context.Context, t *testing.T, name string, change func(*storagev1.StorageClass)) {
	t.Helper()
	class := &storagev1.StorageClass{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: driver,
		Parameters: map[string]string{"server": server, "share": sharePath, "subDir": "${pvc.metadata.namespace}/${pv.metadata.name}"},
	}
	change(class)
	_, err := c.client.StorageV1().StorageClasses().Create(ctx, class, metav1.CreateOptions{})
	check(t, err)
}

// claim makes a claim of a class.
func (c *cluster) claim(ctx context.Context, t *testing.T, name, class string) {
	t.Helper()
	_, err := c.claims().Create(ctx, &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &class,
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany},
			Resources:        corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")}},
		},
	}, metav1.CreateOptions{})
	check(t, err)
}

func (c *cluster) claims() corev1client.PersistentVolumeClaimInterface {
	return c.client.CoreV1().PersistentVolumeClaims(metav1.NamespaceDefault)
}

// selectNode says which node the first consumer of a claim runs on, as the scheduler does.
func (c *cluster) selectNode(ctx context.Context, t *testing.T, claim, node string) {
	t.Helper()
	patch := fmt.Sprintf(`{"metadata": {"annotations": {%q: %q}}}`, selectedNode, node)
	_, err := c.claims().Patch(ctx, claim, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	check(t, err)
}

// bound waits until a claim is bound, writes data into its directory, and returns volume and directory.
func (c *cluster) bound(ctx context.Context, t *testing.T, name string) (volume *corev1.PersistentVolume, dir string) {
	t.Helper()
	var claim *corev1.PersistentVolumeClaim
	waitFor(ctx, t, "claim "+name+" to be bound", doneWithin, func(ctx context.Context) (bool, string, error) {
		var err error
		if claim, err = c.claims().Get(ctx, name, metav1.GetOptions{}); err != nil {
			return false, err.Error(), c.alive()
		}
		return claim.Status.Phase == corev1.ClaimBound, string(claim.Status.Phase), c.alive()
	})
	volume, err := c.client.CoreV1().PersistentVolumes().Get(ctx, claim.Spec.VolumeName, metav1.GetOptions{})
	check(t, err)
	if volume.Spec.CSI == nil || volume.Spec.CSI.Driver != driver || volume.Spec.ClaimRef == nil || volume.Spec.ClaimRef.UID != claim.UID {
		t.Fatalf("the volume of claim %s is %+v", name, volume.Spec)
	}
	dir = filepath.Join(c.share, claim.Namespace, volume.Name)
	check(t, os.WriteFile(filepath.Join(dir, "data"), []byte(name), 0o600))
	return volume, dir
}

// remove deletes a claim, and waits until it and its volume are gone.
func (c *cluster) remove(ctx context.Context, t *testing.T, claim string, volume *corev1.PersistentVolume) {
	t.Helper()
	check(t, c.claims().Delete(ctx, claim, metav1.DeleteOptions{}))
	waitFor(ctx, t, "volume of claim "+claim+" to go", doneWithin, func(ctx context.Context) (bool, string, error) {
		volumes, err := c.client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + volume.Name})
		if err != nil {
			return false, err.Error(), c.alive()
		}
		claims, err := c.claims().List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + claim})
		if err != nil {
			return false, err.Error(), c.alive()
		}
		left := len(volumes.Items) + len(claims.Items)
		return left == 0, fmt.Sprintf("%d claims, %d volumes", len(claims.Items), len(volumes.Items)), c.alive()
	})
}

// data checks whether a claim's data is in a folder.
func data(t *testing.T, dir, claim string, wanted bool) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(dir, "data"))
	if found := err == nil && string(got) == claim; found != wanted {
		t.Errorf("the data of claim %s in %s: %q, %v", claim, dir, got, err)
	}
	if _, err := os.Lstat(dir); !wanted && err == nil {
		t.Errorf("%s is still there", dir)
	}
}

// testBind makes a claim that stays until testTakeover.
func testBind(ctx context.Context, t *testing.T, c *cluster) {
	c.class(ctx, t, "plain", func(*storagev1.StorageClass) {})
	c.claim(ctx, t, "first", "plain")
	_, dir := c.bound(ctx, t, "first")
	info, err := os.Stat(dir)
	check(t, err)
	if !info.IsDir() || info.Mode().Perm() != 0o777 {
		t.Errorf("%s is %s", dir, info.Mode())
	}
}

func testDelete(ctx context.Context, t *testing.T, c *cluster) {
	c.claim(ctx, t, "delete", "plain")
	volume, dir := c.bound(ctx, t, "delete")
	c.remove(ctx, t, "delete", volume)
	data(t, dir, "delete", false)
}

func testVolumeFirst(ctx context.Context, t *testing.T, c *cluster) {
	c.claim(ctx, t, "volume-first", "plain")
	volume, dir := c.bound(ctx, t, "volume-first")
	volumes := c.client.CoreV1().PersistentVolumes()
	check(t, volumes.Delete(ctx, volume.Name, metav1.DeleteOptions{}))
	time.Sleep(stays)
	now, err := volumes.Get(ctx, volume.Name, metav1.GetOptions{})
	check(t, err)
	if now.DeletionTimestamp == nil || now.Status.Phase != corev1.VolumeBound {
		t.Errorf("deleted at %v, %s", now.DeletionTimestamp, now.Status.Phase)
	}
	data(t, dir, "volume-first", true)
	c.remove(ctx, t, "volume-first", volume)
	data(t, dir, "volume-first", false)
}

func testRetain(ctx context.Context, t *testing.T, c *cluster) {
	c.class(ctx, t, "retain", func(class *storagev1.StorageClass) { class.Parameters["onDelete"] = "retain" })
	c.claim(ctx, t, "retain", "retain")
	volume, dir := c.bound(ctx, t, "retain")
	c.remove(ctx, t, "retain", volume)
	data(t, dir, "retain", true)

	c.class(ctx, t, "reclaim", func(class *storagev1.StorageClass) {
		policy := corev1.PersistentVolumeReclaimRetain
		class.ReclaimPolicy = &policy
	})
	c.claim(ctx, t, "reclaim", "reclaim")
	volume, dir = c.bound(ctx, t, "reclaim")
	check(t, c.claims().Delete(ctx, "reclaim", metav1.DeleteOptions{}))
	var now *corev1.PersistentVolume
	released := func(ctx context.Context) (bool, string, error) {
		var err error
		now, err = c.client.CoreV1().PersistentVolumes().Get(ctx, volume.Name, metav1.GetOptions{})
		return err == nil && now.Status.Phase == corev1.VolumeReleased, fmt.Sprintf("%s, %v", now.Status.Phase, err), c.alive()
	}
	waitFor(ctx, t, "the volume to be released", doneWithin, released)
	time.Sleep(stays)
	waitFor(ctx, t, "the volume to stay", stays, released)
	data(t, dir, "reclaim", true)
}

func testArchive(ctx context.Context, t *testing.T, c *cluster) {
	c.class(ctx, t, "archive", func(class *storagev1.StorageClass) { class.Parameters["onDelete"] = "archive" })
	c.claim(ctx, t, "archive", "archive")
	volume, dir := c.bound(ctx, t, "archive")
	c.remove(ctx, t, "archive", volume)
	data(t, dir, "archive", false)
	data(t, filepath.Join(c.share, "archived-"+volume.Name, metav1.NamespaceDefault, volume.Name), "archive", true)
}

// testWaitForFirstConsumer does what the scheduler does, which is not there.
func testWaitForFirstConsumer(ctx context.Context, t *testing.T, c *cluster) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node1", Labels: map[string]string{corev1.LabelHostname: "node1"}}}
	_, err := c.client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
	check(t, err)
	c.class(ctx, t, "late", func(class *storagev1.StorageClass) {
		mode := storagev1.VolumeBindingWaitForFirstConsumer
		class.VolumeBindingMode = &mode
	})
	c.claim(ctx, t, "late", "late")
	c.claim(ctx, t, "moved", "late")
	time.Sleep(stays)
	claim, err := c.claims().Get(ctx, "late", metav1.GetOptions{})
	check(t, err)
	if claim.Status.Phase != corev1.ClaimPending || claim.Spec.VolumeName != "" {
		t.Errorf("no node is selected, and the claim is %s, its volume %q", claim.Status.Phase, claim.Spec.VolumeName)
	}
	c.selectNode(ctx, t, "late", node.Name)
	volume, dir := c.bound(ctx, t, "late")
	c.remove(ctx, t, "late", volume)
	data(t, dir, "late", false)

	c.selectNode(ctx, t, "moved", "gone")
	waitFor(ctx, t, "the claim to go back to the scheduler", doneWithin, func(ctx context.Context) (bool, string, error) {
		claim, err := c.claims().Get(ctx, "moved", metav1.GetOptions{})
		if err != nil {
			return false, err.Error(), c.alive()
		}
		return claim.Annotations[selectedNode] == "", fmt.Sprint(claim.Annotations), c.alive()
	})
}
