package manifests

import (
	"path/filepath"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"sharevol.dev/sharevol/internal/volume"
)

// All that names the driver has csi-driver-nfs's name.
func TestUnderTheNameOfCSIDriverNFS(t *testing.T) {
	in := render(t, "overlays", "from-csi-driver-nfs")
	must(t, in.driver.Name == "nfs.csi.k8s.io", "CSIDriver")
	must(t, argument(in.deployment.Spec.Template.Spec.Containers[0], "--driver-name") == in.driver.Name, "provisioner")
	must(t, argument(in.daemonSet.Spec.Template.Spec.Containers[1], "--driver-name") == in.driver.Name, "node plugin")
	must(t, !*in.driver.Spec.AttachRequired, "attachRequired is as in csi-driver-nfs: it can't be changed")
}

// What the provisioner may look at is the lock of the name that it adopts, and no other.
func TestAdoptingRightsAreForTheAdoptedName(t *testing.T) {
	dir := filepath.Join(root(t), "manifests", "overlays", "from-nfs-subdir")
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatal(err)
	}
	data, err := resources.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	adoption, err := volume.ParseAdoption(argument(render(t, "overlays", "from-nfs-subdir").deployment.Spec.Template.Spec.Containers[0], "--adopt-provisioner"))
	if err != nil {
		t.Fatal(err)
	}
	rules := 0
	for _, object := range decode(t, data) {
		role, ok := object.(*rbacv1.ClusterRole)
		if !ok || role.Name != "sharevol-provisioner-adopt" {
			continue
		}
		for _, rule := range role.Rules {
			rules++
			must(t, strings.Join(rule.ResourceNames, " ") == adoption.Lock() && strings.Join(rule.Verbs, " ") == "list", strings.Join(rule.Resources, " "))
		}
	}
	must(t, rules == 2, "Endpoints and Leases")
}
