package host

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sharevol.dev/sharevol/internal/testbed/guest"
)

// fillNamespace is where the claims are that are there before a burst.
const fillNamespace = "there"

// fillPoll is how often the API server is asked for all that it has.
const fillPoll = 3 * time.Second

// pair is a claim with its volume.
type pair struct {
	claim  *corev1.PersistentVolumeClaim
	volume *corev1.PersistentVolume
}

// template returns a claim and a volume as sharevol makes it, from which others are made.
func (l *lab) template(ctx context.Context) (p pair, err error) {
	o, err := l.observe(ctx)
	if err != nil {
		return pair{}, err
	}
	defer o.stop()
	_, err = l.with(ctx, l.ours, func(ctx context.Context) error {
		ctx, cancel := bounded(ctx, "template")
		defer cancel()
		names := l.names(1)
		if err := l.claim(liveClass)(ctx, names[0]); err != nil {
			return err
		}
		if _, err := o.all(ctx, bound, names); err != nil {
			return err
		}
		if p.claim, err = l.client.CoreV1().PersistentVolumeClaims(namespace).Get(ctx, names[0], metav1.GetOptions{}); err != nil {
			return err
		}
		if p.volume, err = l.client.CoreV1().PersistentVolumes().Get(ctx, p.claim.Spec.VolumeName, metav1.GetOptions{}); err != nil {
			return err
		}
		if err := l.unclaim(ctx, names[0]); err != nil {
			return err
		}
		_, err = o.all(ctx, gone, names)
		return err
	})
	return p, err
}

// fill makes claims and volumes that are bound, from one number to another, and waits until all is quiet.
func (l *lab) fill(ctx context.Context, template pair, from, to int) error {
	if from == to {
		return nil
	}
	ctx, cancel := bounded(ctx, "fill")
	defer cancel()
	began := time.Now()
	var names []string
	for i := from; i < to; i++ {
		names = append(names, fmt.Sprintf("there-%06d", i))
	}
	if err := each(ctx, names, func(ctx context.Context, name string) error { return l.copyOf(ctx, template, name) }); err != nil {
		return err
	}
	err := guest.WaitFor(ctx, "what was made to be bound", fillPoll, func(ctx context.Context) (bool, string, error) {
		n, err := l.unbound(ctx)
		return n == 0, fmt.Sprintf("%d are not", n), err
	})
	if err != nil {
		return err
	}
	if err := l.quiet(ctx); err != nil {
		return err
	}
	l.options.Log("%d claims and volumes are there after %s", to, time.Since(began).Round(time.Second))
	return nil
}

// quiet waits until nothing is written any more: the controller manager looks at all of it for some time, and
// would be measured.
func (l *lab) quiet(ctx context.Context) error {
	last := -1.0
	return guest.WaitFor(ctx, "the controller manager to be done", fillPoll, func(ctx context.Context) (bool, string, error) {
		requests, err := l.requests(ctx)
		if err != nil {
			return false, "", err
		}
		before := last
		last = 0
		for what, count := range requests {
			if strings.Contains(what, "persistentvolume") && !strings.HasPrefix(what, "LIST ") && !strings.HasPrefix(what, "WATCH ") {
				last += count
			}
		}
		return last == before, fmt.Sprintf("%.0f more requests", last-before), nil
	})
}

// copyOf makes a claim and its volume, as the binder leaves them.
func (l *lab) copyOf(ctx context.Context, template pair, name string) error {
	claims, volumes := l.client.CoreV1().PersistentVolumeClaims(fillNamespace), l.client.CoreV1().PersistentVolumes()
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: template.claim.Annotations}, Spec: *template.claim.Spec.DeepCopy(),
	}
	volumeName := "pvc-" + name
	claim.Spec.VolumeName = volumeName
	claim, err := claims.Create(ctx, claim, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: volumeName, Annotations: template.volume.Annotations, Finalizers: template.volume.Finalizers},
		Spec:       *template.volume.Spec.DeepCopy(),
	}
	volume.Spec.ClaimRef = &corev1.ObjectReference{
		Kind: "PersistentVolumeClaim", APIVersion: "v1",
		Namespace: fillNamespace, Name: name, UID: claim.UID, ResourceVersion: claim.ResourceVersion,
	}
	csi := volume.Spec.CSI
	csi.VolumeHandle = strings.ReplaceAll(csi.VolumeHandle, template.volume.Name, volumeName)
	csi.VolumeAttributes["subDir"] = volumeName
	if volume, err = volumes.Create(ctx, volume, metav1.CreateOptions{}); err != nil {
		return err
	}
	volume.Status = template.volume.Status
	claim.Status = template.claim.Status
	// The binder does the same at the same time: whoever comes second has nothing to do.
	if _, err := volumes.UpdateStatus(ctx, volume, metav1.UpdateOptions{}); err != nil && !apierrors.IsConflict(err) {
		return err
	}
	if _, err := claims.UpdateStatus(ctx, claim, metav1.UpdateOptions{}); err != nil && !apierrors.IsConflict(err) {
		return err
	}
	return nil
}

// unbound returns how many of the claims and volumes that were made are not bound.
func (l *lab) unbound(ctx context.Context) (n int, err error) {
	claims, err := l.client.CoreV1().PersistentVolumeClaims(fillNamespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return 0, err
	}
	volumes, err := l.client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return 0, err
	}
	for i := range claims.Items {
		if claims.Items[i].Status.Phase != corev1.ClaimBound {
			n++
		}
	}
	for i := range volumes.Items {
		if volumes.Items[i].Status.Phase != corev1.VolumeBound {
			n++
		}
	}
	return n, nil
}
