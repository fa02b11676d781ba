package provision

import (
	"context"
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"

	"sharevol.dev/sharevol/internal/fs"
	"sharevol.dev/sharevol/internal/share"
	"sharevol.dev/sharevol/internal/volume"
)

// secretKey is the key of a secret that holds mount options, separated by commas.
const secretKey = "mountOptions"

// ref returns how to mount a share: with the options of the class or volume, and
// those of the secret if there is one. No error and no log shows what is in a secret.
func (p *Provisioner) ref(ctx context.Context, s volume.Share, options []string, secret *volume.SecretRef) (share.Ref, error) {
	ref := share.Ref{Share: s, MountOptions: options}
	if secret == nil {
		return ref, nil
	}
	what := fmt.Sprintf("the provisioner's secret %s in namespace %s", secret.Name, secret.Namespace)
	object, err := p.options.Client.CoreV1().Secrets(secret.Namespace).Get(ctx, secret.Name, metav1.GetOptions{})
	if err != nil {
		return ref, fmt.Errorf("%s can't be read (a Role of yours must allow it: see the README): %w", what, err)
	}
	value, found := object.Data[secretKey]
	if !found {
		return ref, fmt.Errorf("%s has no key %s", what, secretKey)
	}
	more, err := fs.Types.Options(s).ParseSecret(string(value))
	if err != nil {
		return ref, fmt.Errorf("%s, key %s: %w", what, secretKey, err)
	}
	// The last one counts: a secret may add to what the class says, and widen nothing.
	ref.MountOptions = slices.Concat(more, options)
	return ref, nil
}

// deletionRef returns how to mount the share of a volume that goes. A secret that is
// gone, with the claim's namespace for example, must not keep the volume for ever: the
// volume's own options are tried then.
func (p *Provisioner) deletionRef(ctx context.Context, vol existing, pv *v1.PersistentVolume) (share.Ref, error) {
	ref, err := p.ref(ctx, vol.Share, vol.mountOptions, deletionSecret(pv))
	if apierrors.IsNotFound(err) {
		klog.FromContext(ctx).Info("Mounting without the options of the provisioner's secret, which is gone", "volume", pv.Name, "reason", err.Error())
		return share.Ref{Share: vol.Share, MountOptions: vol.mountOptions}, nil
	}
	return ref, err
}

// deletionSecret is the secret that pv was provisioned with, nil if with none.
func deletionSecret(pv *v1.PersistentVolume) *volume.SecretRef {
	ref := volume.SecretRef{Namespace: pv.Annotations[annDeletionSecretNamespace], Name: pv.Annotations[annDeletionSecretName]}
	if ref.Namespace == "" || ref.Name == "" {
		return nil
	}
	return &ref
}
