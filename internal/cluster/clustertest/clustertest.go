// Package clustertest has classes, claims and volumes for tests.
package clustertest

import (
	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"sharevol.dev/sharevol/internal/cluster"
	"sharevol.dev/sharevol/internal/volume"
)

// Driver is the driver's name of all classes but those of Adopted.
const Driver = volume.DefaultDriverName

// Adopted is an nfs-subdir-external-provisioner that was adopted.
var Adopted = volume.Adoption{
	Name: "cluster.local/nfs-subdir-external-provisioner", Share: volume.Share{Server: "nfs.example.com", Path: "/srv/k8s"},
}

// AdoptedClasses are classes of Adopted, and one of the driver.
func AdoptedClasses() []runtime.Object {
	class := func(name, provisioner string, parameters map[string]string) runtime.Object {
		return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: provisioner, Parameters: parameters}
	}
	return []runtime.Object{
		class("nfs-client", Adopted.Name, nil),
		class("nfs-delete", Adopted.Name, map[string]string{"archiveOnDelete": "false"}),
		class("nfs-retain", Adopted.Name, map[string]string{"onDelete": "retain"}),
		class("nfs-broken", Adopted.Name, map[string]string{"archiveOnDelete": "perhaps"}),
		class("nfs-remade", Driver, map[string]string{"onDelete": "delete"}),
	}
}

// AdoptedVolume is a released volume of Adopted as that makes them.
func AdoptedVolume(name, path, class string) *v1.PersistentVolume {
	return &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{cluster.AnnProvisionedBy: Adopted.Name}},
		Spec: v1.PersistentVolumeSpec{
			StorageClassName: class, PersistentVolumeReclaimPolicy: v1.PersistentVolumeReclaimDelete,
			PersistentVolumeSource: v1.PersistentVolumeSource{NFS: &v1.NFSVolumeSource{Server: "nfs.example.com", Path: path}},
		},
		Status: v1.PersistentVolumeStatus{Phase: v1.VolumeReleased},
	}
}

// Class is a class that needs nothing special.
func Class() *storagev1.StorageClass {
	return &storagev1.StorageClass{
		ObjectMeta:   metav1.ObjectMeta{Name: "sharevol"},
		Provisioner:  Driver,
		Parameters:   map[string]string{"server": "nfs.example.com", "share": "/srv/volumes/", "onDelete": "delete"},
		MountOptions: []string{"nfsvers=4.2", "hard"},
	}
}

// Claim is a claim of Class.
func Claim() *v1.PersistentVolumeClaim {
	class := Class().Name
	return &v1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "notes", UID: "1", Annotations: map[string]string{
			"volume.kubernetes.io/storage-provisioner": Driver, "volume.beta.kubernetes.io/storage-provisioner": Driver,
		}},
		Spec: v1.PersistentVolumeClaimSpec{
			StorageClassName: &class,
			AccessModes:      []v1.PersistentVolumeAccessMode{v1.ReadWriteMany, v1.ReadOnlyMany},
			Resources:        v1.VolumeResourceRequirements{Requests: v1.ResourceList{v1.ResourceStorage: resource.MustParse("5Gi")}},
		},
	}
}
