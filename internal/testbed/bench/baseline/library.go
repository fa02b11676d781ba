package main

import (
	"context"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v8/controller"
)

// directories is a Provisioner with nothing to it: a directory of a local folder for each volume.
type directories struct{ driver, path string }

func (d directories) Provision(_ context.Context, options controller.ProvisionOptions) (*corev1.PersistentVolume, controller.ProvisioningState, error) {
	dir := filepath.Join(d.path, options.PVName)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	f := floor{driver: d.driver}
	pv := f.volume(options.PVC)
	return &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: options.PVName}, Spec: pv.Spec}, controller.ProvisioningFinished, os.Chmod(dir, 0o777)
}

func (d directories) Delete(_ context.Context, pv *corev1.PersistentVolume) error {
	return os.RemoveAll(filepath.Join(d.path, pv.Name))
}

// serveLibrary works until ctx ends. What is not set here has the library's default. Its leader election asks
// for a lock that client-go has no more, and costs nothing that is measured.
func serveLibrary(ctx context.Context, client kubernetes.Interface, driver, share string, ready func()) error {
	c := controller.NewProvisionController(client, driver, directories{driver, share}, controller.LeaderElection(false))
	go c.Run(ctx) // never returns
	ready()
	<-ctx.Done()
	return nil
}
