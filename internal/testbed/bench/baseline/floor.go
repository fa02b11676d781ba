package main

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"sharevol.dev/sharevol/internal/testbed/bench/follow"
)

const (
	annProvisioner   = "volume.kubernetes.io/storage-provisioner"
	annProvisionedBy = "pv.kubernetes.io/provisioned-by"
	annShareID       = "csi.sharevol.dev/share-id"
	finalizer        = "external-provisioner.volume.kubernetes.io/finalizer"
	// queued is more than there ever is to do at once.
	queued = 1 << 17
	// conflicts is how often a volume is read again that somebody else has changed meanwhile.
	conflicts = 10
)

// floor does what any provisioner must ask of the API server, and nothing else: a volume with its finalizer
// for each claim, and for each released volume its deletion and the end of that finalizer.
type floor struct {
	client kubernetes.Interface
	driver string
	work   chan func(context.Context) error

	mu    sync.Mutex
	begun map[types.UID]bool // claims and volumes whose turn it was
}

func newFloor(client kubernetes.Interface, driver string) *floor {
	return &floor{client: client, driver: driver, work: make(chan func(context.Context) error, queued), begun: map[types.UID]bool{}}
}

// serve works until ctx ends, which is no error. ready is called when the watches are open.
func (f *floor) serve(ctx context.Context, workers int, ready func()) error {
	claims, err := f.client.CoreV1().PersistentVolumeClaims("").List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return err
	}
	volumes, err := f.client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return err
	}
	for i := range claims.Items {
		f.see(watch.Added, &claims.Items[i])
	}
	for i := range volumes.Items {
		f.see(watch.Added, &volumes.Items[i])
	}
	group, ctx := errgroup.WithContext(ctx)
	for range workers {
		group.Go(func() error { return f.worker(ctx) })
	}
	var open atomic.Int32
	opened := func() {
		if open.Add(1) == 2 {
			ready()
		}
	}
	claimVersion, volumeVersion := claims.ResourceVersion, volumes.ResourceVersion // nothing else is kept
	group.Go(func() error {
		return follow.Watch(ctx, claimVersion, f.client.CoreV1().PersistentVolumeClaims("").Watch, opened, f.see)
	})
	group.Go(func() error {
		return follow.Watch(ctx, volumeVersion, f.client.CoreV1().PersistentVolumes().Watch, opened, f.see)
	})
	return group.Wait()
}

func (f *floor) worker(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case do := <-f.work:
			if err := do(ctx); err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
}

// see has the work done that an object asks for, if that has not begun.
func (f *floor) see(kind watch.EventType, object any) {
	if kind == watch.Deleted {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch o := object.(type) {
	case *corev1.PersistentVolumeClaim:
		if o.Spec.VolumeName == "" && o.DeletionTimestamp == nil && o.Annotations[annProvisioner] == f.driver && !f.begun[o.UID] {
			f.begun[o.UID] = true
			f.work <- func(ctx context.Context) error { return f.provision(ctx, o) }
		}
	case *corev1.PersistentVolume:
		if o.Status.Phase == corev1.VolumeReleased && o.Annotations[annProvisionedBy] == f.driver && !f.begun[o.UID] {
			f.begun[o.UID] = true
			f.work <- func(ctx context.Context) error { return f.remove(ctx, o) }
		}
	}
}

func (f *floor) provision(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	_, err := f.client.CoreV1().PersistentVolumes().Create(ctx, f.volume(claim), metav1.CreateOptions{})
	return err
}

// volume is what sharevol makes for a claim.
func (f *floor) volume(claim *corev1.PersistentVolumeClaim) *corev1.PersistentVolume {
	name, mode := "pvc-"+string(claim.UID), corev1.PersistentVolumeFilesystem
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Finalizers: []string{finalizer},
			Annotations: map[string]string{annProvisionedBy: f.driver, annShareID: "0123456789ABCDEFGHIJKLMNOP"},
		},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:    corev1.ResourceList{corev1.ResourceStorage: claim.Spec.Resources.Requests[corev1.ResourceStorage]},
			AccessModes: claim.Spec.AccessModes, PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
			StorageClassName: *claim.Spec.StorageClassName, VolumeMode: &mode,
			ClaimRef: &corev1.ObjectReference{
				Kind: "PersistentVolumeClaim", APIVersion: "v1",
				Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID, ResourceVersion: claim.ResourceVersion,
			},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
				Driver: f.driver, VolumeHandle: "live.bench.example#srv/volumes#" + name + "#" + name + "#",
				VolumeAttributes: map[string]string{"server": "live.bench.example", "share": "/srv/volumes", "subDir": name, "onDelete": "delete"},
			}},
		},
	}
}

// remove deletes a volume and takes off the finalizer, in as few requests as can be: the answer to the first
// has what the second needs.
func (f *floor) remove(ctx context.Context, pv *corev1.PersistentVolume) error {
	volumes, name := f.client.CoreV1().PersistentVolumes(), pv.Name
	pv = &corev1.PersistentVolume{}
	err := f.client.CoreV1().RESTClient().Delete().Resource("persistentvolumes").Name(name).Do(ctx).Into(pv)
	for tried := 0; err == nil; tried++ {
		pv.Finalizers = slices.DeleteFunc(pv.Finalizers, func(f string) bool { return f == finalizer })
		_, err = volumes.Update(ctx, pv, metav1.UpdateOptions{})
		if err == nil || !apierrors.IsConflict(err) || tried == conflicts {
			break
		}
		pv, err = volumes.Get(ctx, name, metav1.GetOptions{})
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
