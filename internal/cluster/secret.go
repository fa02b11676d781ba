package cluster

import (
	"context"
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"sharevol.dev/sharevol/internal/fs"
	"sharevol.dev/sharevol/internal/volume"
)

// secretKey is the key of a secret that holds mount options, separated by commas.
const secretKey = "mountOptions"

// MountOptions returns how to mount a share: with options, those of a class or volume, and
// those of a secret, if there is one. No error shows what is in the secret.
func MountOptions(ctx context.Context, client kubernetes.Interface, s volume.Share, options []string, secret *volume.SecretRef) ([]string, error) {
	if secret == nil {
		return options, nil
	}
	what := fmt.Sprintf("the provisioner's secret %s in namespace %s", secret.Name, secret.Namespace)
	object, err := client.CoreV1().Secrets(secret.Namespace).Get(ctx, secret.Name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("%s can't be read (a Role of yours must allow it: see the README): %w", what, err)
	}
	value, found := object.Data[secretKey]
	if !found {
		return nil, fmt.Errorf("%s has no key %s", what, secretKey)
	}
	more, err := fs.Types.Options(s).ParseSecret(string(value))
	if err != nil {
		return nil, fmt.Errorf("%s, key %s: %w", what, secretKey, err)
	}
	// The last one counts: a secret may add to what the class says, and widen nothing.
	return slices.Concat(more, options), nil
}

// DeletionSecret is the secret that pv was provisioned with, nil if with none.
func DeletionSecret(pv *v1.PersistentVolume) *volume.SecretRef {
	ref := volume.SecretRef{Namespace: pv.Annotations[AnnDeletionSecretNamespace], Name: pv.Annotations[AnnDeletionSecretName]}
	if ref.Namespace == "" || ref.Name == "" {
		return nil
	}
	return &ref
}
