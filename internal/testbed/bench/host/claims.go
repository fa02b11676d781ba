package host

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// callers is how many ask the API server at the same time.
	callers = 50
	// within bounds each wait for a set of claims; the slowest set takes a minute or two.
	within = 10 * time.Minute
)

// bounded bounds one step of a measurement.
func bounded(ctx context.Context, step string) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, within, fmt.Errorf("%s: not within %s", step, within))
}

// names returns names of claims that were not used before.
func (l *lab) names(count int) []string {
	l.serial++
	names := make([]string, count)
	for i := range names {
		names[i] = fmt.Sprintf("claim-%d-%d", l.serial, i)
	}
	return names
}

// each does something with many names at once, until one fails.
func each(ctx context.Context, names []string, do func(ctx context.Context, name string) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(callers)
	for _, name := range names {
		group.Go(func() error { return do(ctx, name) })
	}
	return group.Wait()
}

var (
	anyMode = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
	size    = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")}
)

// claim makes a claim of a class.
func (l *lab) claim(class string) func(ctx context.Context, name string) error {
	return func(ctx context.Context, name string) error {
		_, err := l.client.CoreV1().PersistentVolumeClaims(namespace).Create(ctx, &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: corev1.PersistentVolumeClaimSpec{
				StorageClassName: &class, AccessModes: anyMode, Resources: corev1.VolumeResourceRequirements{Requests: size},
			},
		}, metav1.CreateOptions{})
		return err
	}
}

func (l *lab) unclaim(ctx context.Context, name string) error {
	return l.client.CoreV1().PersistentVolumeClaims(namespace).Delete(ctx, name, metav1.DeleteOptions{})
}

// byHand makes a volume that is bound to a claim before that is there.
func (l *lab) byHand(ctx context.Context, claim string) error {
	_, err := l.client.CoreV1().PersistentVolumes().Create(ctx, &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "by-hand-" + claim},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: size, AccessModes: anyMode, StorageClassName: handClass, PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			ClaimRef: &corev1.ObjectReference{Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: namespace, Name: claim},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
				Driver: "by-hand.bench.example", VolumeHandle: claim,
			}},
		},
	}, metav1.CreateOptions{})
	return err
}

// sweep deletes the volumes of a set of claims, of whose program nothing runs any more, and waits until they
// are gone. The claims were deleted.
func (l *lab) sweep(ctx context.Context, o *observer, names []string) error {
	ctx, cancel := bounded(ctx, "sweep")
	defer cancel()
	volumes, err := l.client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	var left []string
	for i := range volumes.Items {
		if ref := volumes.Items[i].Spec.ClaimRef; ref != nil && ref.Namespace == namespace {
			left = append(left, volumes.Items[i].Name)
		}
	}
	err = each(ctx, left, func(ctx context.Context, name string) error {
		err := l.client.CoreV1().PersistentVolumes().Delete(ctx, name, metav1.DeleteOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	_, err = o.all(ctx, gone, names)
	return err
}
