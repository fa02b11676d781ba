package controller

import (
	"context"
	"errors"
	"sync"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"

	"sharevol.dev/sharevol/internal/kubeclient"
)

// unsavedPVs are the names of the volumes that the API server did not take so far.
type unsavedPVs struct{ names sync.Map }

func (u *unsavedPVs) has(name string) bool {
	_, found := u.names.Load(name)
	return found
}

// savingClient is a client that tells a claim's users when the API server does not take the
// claim's volume, because of a webhook, a policy or a quota. The controller library
// tries again for ever, says nothing, and takes the volume for saved.
type savingClient struct {
	kubernetes.Interface
	recorder record.EventRecorder
	unsaved  *unsavedPVs
}

func (s savingClient) CoreV1() corev1.CoreV1Interface {
	return savingCore{CoreV1Interface: s.Interface.CoreV1(), saving: s}
}

type savingCore struct {
	corev1.CoreV1Interface
	saving savingClient
}

func (s savingCore) PersistentVolumes() corev1.PersistentVolumeInterface {
	return savingVolumes{PersistentVolumeInterface: s.CoreV1Interface.PersistentVolumes(), saving: s.saving}
}

type savingVolumes struct {
	corev1.PersistentVolumeInterface
	saving savingClient
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
