package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"

	"sharevol.dev/sharevol/internal/kubeclient"
)

// finalizer is what the controller library puts on volumes.
const finalizer = "external-provisioner.volume.kubernetes.io/finalizer"

// unsaved are the names of the volumes that the API server did not take so far.
type unsaved struct{ names sync.Map }

func (u *unsaved) has(name string) bool {
	_, found := u.names.Load(name)
	return found
}

// saving is a client that tells a claim's users when the API server does not take the
// claim's volume, because of a webhook, a policy or a quota. The controller library
// tries again for ever, says nothing, and takes the volume for saved. It also deletes
// volumes with more care.
type saving struct {
	kubernetes.Interface
	recorder record.EventRecorder
	unsaved  *unsaved
	outgoing *outgoing
}

func (s saving) CoreV1() corev1.CoreV1Interface {
	return savingCore{CoreV1Interface: s.Interface.CoreV1(), saving: s}
}

type savingCore struct {
	corev1.CoreV1Interface
	saving saving
}

func (s savingCore) PersistentVolumes() corev1.PersistentVolumeInterface {
	return savingVolumes{PersistentVolumeInterface: s.CoreV1Interface.PersistentVolumes(), saving: s.saving}
}

type savingVolumes struct {
	corev1.PersistentVolumeInterface
	saving saving
}

func (s savingVolumes) Create(ctx context.Context, pv *v1.PersistentVolume, options metav1.CreateOptions) (*v1.PersistentVolume, error) {
	saved, err := s.PersistentVolumeInterface.Create(ctx, pv, options)
	if err == nil || apierrors.IsAlreadyExists(err) {
		s.saving.unsaved.names.Delete(pv.Name)
		return saved, err
	}
	s.saving.unsaved.names.Store(pv.Name, nil)
	if !errors.Is(err, kubeclient.ErrNotSent) && pv.Spec.ClaimRef != nil {
		s.saving.recorder.Eventf(pv.Spec.ClaimRef, v1.EventTypeWarning, "ProvisioningFailed",
			"the directory is made, but the PersistentVolume %s can't be saved; will try again: %v", pv.Name, err)
	}
	return saved, err
}

// Delete deletes a volume whose directory is done with: our finalizer first, then the
// volume, each only as it was when that was seen last. If it has changed since, that is
// an error, and the controller begins again: the volume may have been given to somebody.
// (The controller library would delete whatever has the name, take the finalizer off by
// its cache, be refused where that is behind, and begin again a second later.)
func (s savingVolumes) Delete(ctx context.Context, name string, options metav1.DeleteOptions) error {
	pv := s.saving.outgoing.take(name)
	if pv == nil {
		return fmt.Errorf("the directory of the volume %s is not done with", name)
	}
	s.saving.outgoing.hide(name, pv.UID)
	err := s.delete(ctx, pv, options)
	if err != nil {
		s.saving.outgoing.show(name)
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func (s savingVolumes) delete(ctx context.Context, pv *v1.PersistentVolume, options metav1.DeleteOptions) error {
	if left := slices.DeleteFunc(slices.Clone(pv.Finalizers), func(f string) bool { return f == finalizer }); len(left) < len(pv.Finalizers) {
		pv = pv.DeepCopy() // it may be the cache's
		pv.Finalizers = left
		var err error
		if pv, err = s.Update(ctx, pv, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	if pv.DeletionTimestamp != nil {
		return nil // somebody has deleted it before; it has waited for us, or waits for others
	}
	options.Preconditions = &metav1.Preconditions{UID: &pv.UID, ResourceVersion: &pv.ResourceVersion}
	return s.PersistentVolumeInterface.Delete(ctx, pv.Name, options)
}
