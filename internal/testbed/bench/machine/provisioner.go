package machine

import (
	"context"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"sharevol.dev/sharevol/internal/testbed/guest"
)

const (
	provisionerAddress = "127.0.0.1:29801"
	boundWithin        = 2 * time.Minute
	goneWithin         = 15 * time.Minute
	poll               = 100 * time.Millisecond
)

// startProvisioner starts the program with the arguments of the manifests and more, and waits until it is ready.
func startProvisioner(ctx context.Context, args ...string) (*process, error) {
	p, err := startProcess(ctx, provisionerProgram, provisionerProgram, append([]string{
		"--driver-name=" + driver, "--http-address=" + provisionerAddress, "-v=2",
		"--kubeconfig=" + guest.KubeconfigPath, "--lease-namespace=" + metav1.NamespaceDefault,
	}, args...)...)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	return p, guest.WaitFor(ctx, "the provisioner to be ready", poll, func(ctx context.Context) (bool, string, error) {
		select {
		case <-p.exited:
			return false, "", fmt.Errorf("it ended: %s", p.cmd.ProcessState)
		default:
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+provisionerAddress+"/readyz", nil)
		if err != nil {
			return false, "", err
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			return false, err.Error(), nil
		}
		return answer.StatusCode == http.StatusOK, answer.Status, answer.Body.Close()
	})
}

const driver = "csi.sharevol.dev"

// makeClass makes a StorageClass of a share.
func makeClass(ctx context.Context, client kubernetes.Interface, name string, server *guest.NFSServer, share string) error {
	_, err := client.StorageV1().StorageClasses().Create(ctx, &storagev1.StorageClass{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: driver,
		Parameters:   map[string]string{"server": server.Address, "share": share},
		MountOptions: mountFlags,
	}, metav1.CreateOptions{})
	return err
}

// makeClaim makes a claim of a class and returns its volume once it is bound.
func makeClaim(ctx context.Context, client kubernetes.Interface, name, class string) (*corev1.PersistentVolume, error) {
	claims := client.CoreV1().PersistentVolumeClaims(metav1.NamespaceDefault)
	_, err := claims.Create(ctx, &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &class,
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany},
			Resources:        corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, boundWithin)
	defer cancel()
	var claim *corev1.PersistentVolumeClaim
	err = guest.WaitFor(ctx, "claim "+name+" to be bound", poll, func(ctx context.Context) (bool, string, error) {
		claim, err = claims.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, err.Error(), nil
		}
		return claim.Status.Phase == corev1.ClaimBound, string(claim.Status.Phase), nil
	})
	if err != nil {
		return nil, err
	}
	return client.CoreV1().PersistentVolumes().Get(ctx, claim.Spec.VolumeName, metav1.GetOptions{})
}

// deleteClaim deletes a claim and returns how long it took until its volume was gone, in milliseconds.
func deleteClaim(ctx context.Context, client kubernetes.Interface, name, volume string) (float64, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, goneWithin, fmt.Errorf("volume %s is not gone after %s", volume, goneWithin))
	defer cancel()
	changes, err := client.CoreV1().PersistentVolumes().Watch(ctx, metav1.SingleObject(metav1.ObjectMeta{Name: volume}))
	if err != nil {
		return 0, err
	}
	defer changes.Stop()
	start := time.Now()
	if err := client.CoreV1().PersistentVolumeClaims(metav1.NamespaceDefault).Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		return 0, err
	}
	for {
		select {
		case change, open := <-changes.ResultChan():
			switch {
			case !open:
				return 0, fmt.Errorf("the watch of volume %s ended", volume)
			case change.Type == watch.Deleted:
				return milliseconds(time.Since(start)), nil
			}
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}
