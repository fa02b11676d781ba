package controller

import (
	"context"
	"errors"
	"slices"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	lib "sigs.k8s.io/sig-storage-lib-external-provisioner/v8/controller"

	"sharevol.dev/sharevol/internal/cluster"
	"sharevol.dev/sharevol/internal/provision"
	"sharevol.dev/sharevol/internal/share"
	"sharevol.dev/sharevol/internal/volume"
)

// adapter is the Provisioner of one provisioner's name, as the library calls it.
type adapter struct {
	format  cluster.Format
	options Options
	workers workers
	retries *retryPolicy
}

var (
	_ lib.Provisioner   = (*adapter)(nil)
	_ lib.Qualifier     = (*adapter)(nil)
	_ lib.DeletionGuard = (*adapter)(nil)
)

// What the library takes for the end of a call, without an event on the claim or volume.
// It finds these only unwrapped.
var (
	errStopping = &lib.IgnoredError{Reason: provision.ErrStopping.Error()}
	// errDeleted: the library would delete whatever has the name by now, and take the
	// finalizer off by its cache.
	errDeleted = &lib.IgnoredError{Reason: "the PersistentVolume is deleted"}
)

// workers are tokens for the calls of all names together: the library limits those of one.
type workers struct{ provisions, deletions chan struct{} }

func newWorkers(n int) workers {
	return workers{provisions: make(chan struct{}, n), deletions: make(chan struct{}, n)}
}

// acquire takes a token, and returns false if ctx ends before there is one.
func acquire(ctx context.Context, tokens chan struct{}) bool {
	select {
	case tokens <- struct{}{}:
		return true
	default:
	}
	select {
	case tokens <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// ShouldProvision leaves claims alone whose share another provisioner has premounted: in
// the unprivileged mode there is one for each server.
func (a *adapter) ShouldProvision(_ context.Context, claim *v1.PersistentVolumeClaim) bool {
	class := a.options.Cluster.ClassOf(claim)
	if class == nil {
		return true // the library says what is wrong
	}
	parsed, _ := a.format.ReadClass(class.Parameters, nil)
	return parsed.Share == (volume.Share{}) || a.options.Shares.Serves(parsed.Share)
}

// ShouldDelete is the same for volumes. Our own DELETE brings a volume here once more,
// which the cache may still show after its end: the library would count it as deleted twice.
func (a *adapter) ShouldDelete(ctx context.Context, pv *v1.PersistentVolume) bool {
	return a.serves(pv) && (pv.DeletionTimestamp == nil || !a.isGone(ctx, pv))
}

func (a *adapter) serves(pv *v1.PersistentVolume) bool {
	vol, err := a.format.Read(pv)
	return err != nil || a.options.Shares.Serves(vol.Share)
}

// isGone reports whether the API server says that there is no such volume any more.
func (a *adapter) isGone(ctx context.Context, pv *v1.PersistentVolume) bool {
	live, err := a.options.Client.CoreV1().PersistentVolumes().Get(ctx, pv.Name, metav1.GetOptions{})
	return apierrors.IsNotFound(err) || err == nil && live.UID != pv.UID
}

// Provision is provision.Provisioner.Provision.
func (a *adapter) Provision(ctx context.Context, options lib.ProvisionOptions) (*v1.PersistentVolume, lib.ProvisioningState, error) {
	if !acquire(ctx, a.workers.provisions) {
		return nil, lib.ProvisioningNoChange, errStopping
	}
	defer func() { <-a.workers.provisions }()
	request := provision.Request{Name: options.PVName, Class: options.StorageClass, Claim: options.PVC}
	pv, err := a.options.Provisioner.Provision(ctx, a.format, request)
	a.retries.record(string(options.PVC.UID), err)
	switch {
	case err == nil:
		return pv, lib.ProvisioningFinished, nil
	case errors.Is(err, provision.ErrStopping):
		return nil, lib.ProvisioningNoChange, errStopping
	case errors.Is(err, provision.ErrInvalid), errors.Is(err, share.ErrUntouched):
		// Whatever an earlier attempt began, stands.
		return nil, lib.ProvisioningNoChange, err
	}
	// The directory may be there, or appear late. The library then goes on even if the
	// claim is deleted, so that it is made, saved and removed again.
	return nil, lib.ProvisioningInBackground, err
}

// Delete is provision.Provisioner.Delete. It always returns an error, as the library
// would go on with the PersistentVolume otherwise.
func (a *adapter) Delete(ctx context.Context, pv *v1.PersistentVolume) error {
	if !acquire(ctx, a.workers.deletions) {
		return errStopping
	}
	defer func() { <-a.workers.deletions }()
	err := a.options.Provisioner.Delete(ctx, a.format, pv)
	a.retries.record(pv.Name, err)
	switch {
	case err == nil, errors.Is(err, provision.ErrGone):
		return errDeleted
	case errors.Is(err, provision.ErrStopping):
		return errStopping
	}
	return err
}

// wantsVolume says whether a volume is of this name, is served, and has something to be
// done. The library would put its finalizer on others', too: where another provisioner of
// the name takes that off, to delete one, it would come back meanwhile.
func (a *adapter) wantsVolume(object any) bool {
	pv, ok := object.(*v1.PersistentVolume)
	name := a.format.Provisioner()
	return ok && !rests(pv) && (pv.Annotations[cluster.AnnProvisionedBy] == name || pv.Annotations[annMigratedTo] == name) &&
		a.serves(pv)
}

// rests reports whether the library would look at a volume and do nothing: it has its
// finalizer, rightly, and is not released.
func rests(pv *v1.PersistentVolume) bool {
	return pv.Status.Phase != v1.VolumeReleased && pv.Spec.PersistentVolumeReclaimPolicy == v1.PersistentVolumeReclaimDelete &&
		slices.Contains(pv.Finalizers, provision.Finalizer)
}
