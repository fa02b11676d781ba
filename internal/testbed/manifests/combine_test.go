package manifests

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"sharevol.dev/sharevol/internal/volume"
)

// combination is one choice of components.
type combination struct {
	adopt bool // on top of the overlay from-nfs-subdir
	names []string
}

func (c combination) has(name string) bool { return slices.Contains(c.names, name) }

func (c combination) base() string {
	if c.adopt {
		return "overlays/from-nfs-subdir"
	}
	return "base"
}

func (c combination) String() string { return fmt.Sprint(c.base(), c.names) }

// combinations are all that make sense: of those for one age of clusters one at most.
func combinations() []combination {
	var all []combination
	for _, age := range [][]string{nil, {"before-1.30"}, {"legacy"}} {
		for bits := range 32 {
			c := combination{adopt: bits&1 != 0}
			if bits&2 != 0 {
				c.names = append(c.names, "from-csi-driver-nfs")
			}
			for i, name := range []string{"unprivileged", "no-sidecar", "selinux"} {
				if bits&(4<<i) != 0 {
					c.names = append(c.names, name)
				}
			}
			c.names = append(c.names, age...)
			all = append(all, c)
			ha := []string{"ha", "ha-before-1.21"}
			if len(age) == 0 {
				ha = ha[:1]
			} else if age[0] == "legacy" {
				ha = ha[1:]
			}
			for _, name := range ha {
				all = append(all, combination{c.adopt, append(slices.Clone(c.names), name)})
			}
		}
	}
	return all
}

// reversed is the other way round, but for the component that is to be first.
func (c combination) reversed() []string {
	names := slices.Clone(c.names)
	slices.Reverse(names)
	if c.has("from-csi-driver-nfs") {
		names = append([]string{"from-csi-driver-nfs"}, names[:len(names)-1]...)
	}
	return names
}

// Each combination renders, in any order, and is consistent in itself.
func TestComponentsCombine(t *testing.T) {
	for _, c := range combinations() {
		t.Run(c.String(), func(t *testing.T) {
			data, err := renderYAML(t, kustomization(t, c.base(), c.names, ""))
			if err != nil {
				t.Fatal(err)
			}
			other, err := renderYAML(t, kustomization(t, c.base(), c.reversed(), ""))
			if err != nil {
				t.Fatal(c.reversed(), err)
			}
			must(t, string(data) == string(other), fmt.Sprintf("%s renders something else", c.reversed()))
			in := collect(t, data)
			checkNames(t, in)
			checkImages(t, in)
			checkChoices(t, in, c)
			checkVersions(t, in, c)
		})
	}
}

// The one component that has its place fails in another one, where that would matter.
func TestWrongOrderRendersNothing(t *testing.T) {
	for _, names := range [][]string{{"legacy", "from-csi-driver-nfs"}, {"no-sidecar", "from-csi-driver-nfs"}} {
		if _, err := renderYAML(t, kustomization(t, "base", names, "")); err == nil || !strings.Contains(err.Error(), "test") {
			t.Errorf("%s: %v", names, err)
		}
	}
}

// checkNames holds each name against what it names, and all namespaces against each other.
func checkNames(t *testing.T, in installation) {
	t.Helper()
	namespace := in.deployment.Namespace
	accounts := map[string]bool{}
	for _, account := range in.accounts {
		accounts[account.Namespace+"/"+account.Name] = true
	}
	if in.namespace != nil {
		must(t, in.namespace.Name == namespace, "the namespace is made")
	}
	must(t, namespace != "" && in.daemonSet.Namespace == namespace && in.leases.Namespace == namespace, "one namespace")
	must(t, in.driver.Namespace == "" && in.role.Namespace == "", "what belongs to no namespace has none")
	must(t, accounts[namespace+"/"+in.deployment.Spec.Template.Spec.ServiceAccountName], "the provisioner's account")
	must(t, accounts[namespace+"/"+in.daemonSet.Spec.Template.Spec.ServiceAccountName], "the node plugin's account")

	roles := map[string]bool{"ClusterRole/" + in.role.Name: true, "Role/" + in.leases.Name: true}
	bound := map[string]bool{}
	bind := func(ref rbacv1.RoleRef, subjects []rbacv1.Subject) {
		bound[ref.Kind+"/"+ref.Name] = true
		must(t, len(subjects) == 1 && subjects[0].Namespace == namespace && subjects[0].Name == in.deployment.Spec.Template.Spec.ServiceAccountName, ref.Name+" is the provisioner's")
	}
	for _, object := range in.others {
		switch o := object.(type) {
		case *rbacv1.ClusterRole:
			roles["ClusterRole/"+o.Name] = true
		case *rbacv1.ClusterRoleBinding:
			bind(o.RoleRef, o.Subjects)
		case *rbacv1.RoleBinding:
			must(t, o.Namespace == namespace, "the binding's namespace")
			bind(o.RoleRef, o.Subjects)
		}
	}
	must(t, reflect.DeepEqual(roles, bound), fmt.Sprintf("roles %v, bound %v", roles, bound))

	provisioner, node := in.deployment.Spec, in.daemonSet.Spec
	must(t, reflect.DeepEqual(provisioner.Selector.MatchLabels, provisioner.Template.Labels), "the provisioner's selector")
	must(t, reflect.DeepEqual(node.Selector.MatchLabels, node.Template.Labels), "the node plugin's selector")
	must(t, !reflect.DeepEqual(provisioner.Template.Labels, node.Template.Labels), "two selectors")
	must(t, provisioner.Template.Labels["app.kubernetes.io/instance"] != "", "the instance")

	// One driver name everywhere, and one socket.
	pod := node.Template.Spec
	c := pod.Containers[0]
	must(t, argument(provisioner.Template.Spec.Containers[0], "--driver-name") == in.driver.Name && argument(c, "--driver-name") == in.driver.Name, "the driver's name")
	told := socketOf(c)
	if len(pod.Containers) == 2 {
		told = argument(pod.Containers[1], "--kubelet-registration-path")
		must(t, onHost(pod, pod.Containers[1], argument(pod.Containers[1], "--csi-address")) == told, "the registrar's socket")
	}
	must(t, onHost(pod, c, socketOf(c)) == told && strings.HasSuffix(told, "/plugins/"+in.driver.Name+"/csi.sock"), "kubelet is told of the socket: "+told)
}

func checkImages(t *testing.T, in installation) {
	t.Helper()
	want := map[string]string{
		"sharevol-provisioner": "ghcr.io/sharevol/sharevol-provisioner:v", "sharevol-node": "ghcr.io/sharevol/sharevol-node:v",
		"node-driver-registrar": "registry.k8s.io/sig-storage/csi-node-driver-registrar:v",
	}
	for _, c := range append(slices.Clone(in.deployment.Spec.Template.Spec.Containers), in.daemonSet.Spec.Template.Spec.Containers...) {
		must(t, want[c.Name] != "" && strings.HasPrefix(c.Image, want[c.Name]), c.Name+": "+c.Image)
	}
}

// checkChoices holds what each component promises, whatever the others do.
func checkChoices(t *testing.T, in installation, c combination) {
	t.Helper()
	provisioner, node := in.deployment.Spec.Template.Spec, in.daemonSet.Spec.Template.Spec
	container := provisioner.Containers[0]
	driver := volume.DefaultDriverName
	if c.has("from-csi-driver-nfs") {
		driver = "nfs.csi.k8s.io"
	}
	must(t, in.driver.Name == driver, driver)
	must(t, c.adopt == (argument(container, "--adopt-provisioner") != ""), "what it adopts")

	must(t, provisioner.HostNetwork == !c.has("unprivileged") && node.HostNetwork, "host network")
	security := container.SecurityContext
	must(t, (security.Capabilities.Add == nil) == c.has("unprivileged") && (*security.RunAsUser == 0) == !c.has("unprivileged"), "capabilities")
	must(t, *security.ReadOnlyRootFilesystem && slices.Equal(security.Capabilities.Drop, []corev1.Capability{"ALL"}), "no more than needed")
	must(t, (len(provisioner.Volumes) == 0) == c.has("unprivileged"), "where shares are mounted")

	must(t, len(node.Containers) == 2 == !c.has("no-sidecar"), "containers of the node plugin")
	must(t, (argument(node.Containers[0], "--registration-dir") != "") == c.has("no-sidecar"), "who registers")
	must(t, in.daemonSet.Spec.UpdateStrategy.RollingUpdate.MaxSurge == nil && in.daemonSet.Spec.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType,
		"one at a time on a node: an old one that ends would take the new one's socket away")
	for _, pod := range []corev1.PodSpec{provisioner, node} {
		must(t, (pod.SecurityContext != nil && pod.SecurityContext.SELinuxOptions.Type == "spc_t") == c.has("selinux"), "spc_t")
	}

	ha := c.has("ha") || c.has("ha-before-1.21")
	must(t, (*in.deployment.Spec.Replicas == 2) == ha && (in.budget != nil) == ha && (provisioner.Affinity != nil) == ha, "replicas")
	if !ha || in.budget == nil || provisioner.Affinity == nil {
		must(t, in.deployment.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType, "one at a time")
		return
	}
	must(t, in.budget.Namespace == in.deployment.Namespace && reflect.DeepEqual(in.budget.Spec.Selector, in.deployment.Spec.Selector) && in.budget.Spec.MaxUnavailable.IntValue() == 1, "the budget is the provisioner's")
	term := provisioner.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution[0]
	must(t, term.TopologyKey == "kubernetes.io/hostname" && reflect.DeepEqual(term.LabelSelector, in.deployment.Spec.Selector), "two nodes")
	strategy := in.deployment.Spec.Strategy
	must(t, strategy.Type == appsv1.RollingUpdateDeploymentStrategyType && strategy.RollingUpdate.MaxSurge.IntValue() == 0 && strategy.RollingUpdate.MaxUnavailable.IntValue() == 1,
		"the old one goes first: two can't share a node's ports")
}

// checkVersions holds what is rendered against what servers of that age know.
func checkVersions(t *testing.T, in installation, c combination) {
	t.Helper()
	const appArmor, seccomp = "container.apparmor.security.beta.kubernetes.io/sharevol-provisioner", "container.seccomp.security.alpha.kubernetes.io/sharevol-provisioner"
	template := in.deployment.Spec.Template
	security := template.Spec.Containers[0].SecurityContext
	old := c.has("legacy") || c.has("before-1.30")
	must(t, (security.AppArmorProfile != nil) == (!old && !c.has("unprivileged")), "AppArmor's field")
	must(t, (template.Annotations[appArmor] == "unconfined") == (old && !c.has("unprivileged")), "AppArmor's annotation")
	must(t, (security.SeccompProfile == nil) == c.has("legacy") && (template.Annotations[seccomp] == "runtime/default") == c.has("legacy"), "seccomp")
	must(t, (in.namespace == nil) == c.has("legacy") && (in.deployment.Namespace == "kube-system") == c.has("legacy"), "namespace")

	driver := "storage.k8s.io/v1"
	if c.has("legacy") {
		driver = "storage.k8s.io/v1beta1"
		must(t, len(in.leases.Rules) == 2 && slices.Equal(in.leases.Rules[1].ResourceNames, []string{in.driver.Name}) && !slices.Contains(in.leases.Rules[0].Verbs, "update"),
			"in kube-system it has its own Lease and no other")
		checkKnown(t, in.yaml)
	}
	must(t, in.driver.APIVersion == driver, "CSIDriver "+in.driver.APIVersion)
	if in.budget != nil {
		want := "policy/v1"
		if c.has("ha-before-1.21") {
			want = "policy/v1beta1"
		}
		must(t, in.budget.APIVersion == want, "PodDisruptionBudget "+in.budget.APIVersion)
	}
}

// knownTo115 are the versions and the names of fields that the manifests may use on
// Kubernetes 1.15. A name is added here when its documentation says that 1.15 has it.
var knownTo115 = strings.Fields(`
v1 apps/v1 policy/v1beta1 rbac.authorization.k8s.io/v1 storage.k8s.io/v1 storage.k8s.io/v1beta1
apiVersion kind metadata name namespace labels annotations spec rules roleRef subjects apiGroup apiGroups resources resourceNames verbs
automountServiceAccountToken attachRequired podInfoOnMount selector matchLabels template replicas strategy type rollingUpdate maxSurge
maxUnavailable updateStrategy minAvailable serviceAccountName priorityClassName hostNetwork dnsPolicy nodeSelector tolerations operator
terminationGracePeriodSeconds containers image args env valueFrom fieldRef fieldPath securityContext runAsUser runAsGroup runAsNonRoot
capabilities drop add privileged allowPrivilegeEscalation readOnlyRootFilesystem seLinuxOptions livenessProbe readinessProbe httpGet host
port path periodSeconds timeoutSeconds failureThreshold initialDelaySeconds requests limits cpu memory volumeMounts mountPath
mountPropagation volumes hostPath emptyDir medium sizeLimit affinity podAntiAffinity requiredDuringSchedulingIgnoredDuringExecution
topologyKey labelSelector`)

// checkKnown names each version and each field that Kubernetes 1.15 does not know.
func checkKnown(t *testing.T, data []byte) {
	t.Helper()
	for _, object := range plain(t, data) {
		u := unstructured.Unstructured{Object: object}
		must(t, slices.Contains(knownTo115, u.GetAPIVersion()), u.GetAPIVersion())
		walk(object, func(name string) {
			must(t, slices.Contains(knownTo115, name) || strings.Contains(name, "kubernetes.io/") || name == "sharevol.dev/mounts-by" || slices.Contains(helmLabels, name), u.GetKind()+": "+name)
		})
	}
}

func walk(value any, visit func(name string)) {
	switch v := value.(type) {
	case map[string]any:
		for name, inner := range v {
			visit(name)
			walk(inner, visit)
		}
	case []any:
		for _, inner := range v {
			walk(inner, visit)
		}
	}
}
