package manifests

import (
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"

	"sharevol.dev/sharevol/internal/volume"
)

// All that names the driver has csi-driver-nfs's name.
func TestUnderTheNameOfCSIDriverNFS(t *testing.T) {
	in := render(t, "overlays", "from-csi-driver-nfs")
	must(t, in.driver.Name == "nfs.csi.k8s.io", "CSIDriver")
	must(t, argument(in.deployment.Spec.Template.Spec.Containers[0], "--driver-name") == in.driver.Name, "provisioner")
	must(t, argument(in.daemonSet.Spec.Template.Spec.Containers[0], "--driver-name") == in.driver.Name, "node plugin")
	must(t, !*in.driver.Spec.AttachRequired, "attachRequired is as in csi-driver-nfs: it can't be changed")
}

// What the provisioner may look at is the lock of the name that it adopts, and no other.
func TestAdoptingRightsAreForTheAdoptedName(t *testing.T) {
	in := render(t, "overlays", "from-nfs-subdir")
	adoption, err := volume.ParseAdoption(argument(in.deployment.Spec.Template.Spec.Containers[0], "--adopt-provisioner"))
	if err != nil {
		t.Fatal(err)
	}
	rules := 0
	for _, object := range in.others {
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
