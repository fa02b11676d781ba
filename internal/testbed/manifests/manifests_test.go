// Package manifests tests what users apply: it renders the repository's manifests
// as kubectl does and holds them against what nodes need and what the programs take.
package manifests

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"sharevol.dev/sharevol/internal/fs"
	"sharevol.dev/sharevol/internal/volume"
)

func must(t *testing.T, ok bool, what string) {
	t.Helper()
	if !ok {
		t.Error(what)
	}
}

func TestDriver(t *testing.T) {
	spec := render(t).driver.Spec
	must(t, !*spec.AttachRequired, "the driver attaches nothing")
	must(t, *spec.FSGroupPolicy == storagev1.FileFSGroupPolicy, "kubelet applies fsGroup")
}

func TestNamespaceAllowsPrivilegedPods(t *testing.T) {
	must(t, render(t).namespace.Labels["pod-security.kubernetes.io/enforce"] == "privileged", "Pod Security would refuse the pods")
}

// checkPod holds what both programs' pods have in common.
func checkPod(t *testing.T, pod corev1.PodSpec, containers ...string) {
	t.Helper()
	must(t, pod.HostNetwork, "exports check the client's address and port: host network")
	must(t, pod.DNSPolicy == corev1.DNSClusterFirstWithHostNet, "on the host's network cluster names resolve only with ClusterFirstWithHostNet")
	var names []string
	for _, c := range pod.Containers {
		names = append(names, c.Name)
		must(t, !c.Resources.Requests.Cpu().IsZero() && !c.Resources.Requests.Memory().IsZero() && !c.Resources.Limits.Memory().IsZero(), c.Name+": requests and limits")
		must(t, c.LivenessProbe != nil, c.Name+": liveness probe")
		must(t, *c.SecurityContext.ReadOnlyRootFilesystem, c.Name+": read-only root file system")
		if probe := c.LivenessProbe.HTTPGet; probe != nil {
			address := argument(c, "--http-address") + argument(c, "--http-endpoint") // the registrar's
			must(t, address == "127.0.0.1:"+probe.Port.String() && probe.Host == "127.0.0.1", c.Name+": probes what it serves, on the loopback only")
		}
	}
	must(t, slices.Equal(names, containers), "containers: "+strings.Join(names, ", "))
}

func argument(c corev1.Container, flag string) string {
	for _, arg := range c.Args {
		if value, found := strings.CutPrefix(arg, flag+"="); found {
			return value
		}
	}
	return ""
}

func TestProvisionerPod(t *testing.T) {
	in := render(t)
	pod := in.deployment.Spec.Template.Spec
	checkPod(t, pod, "sharevol-provisioner")
	c := pod.Containers[0]
	must(t, c.ReadinessProbe != nil, "readiness probe")
	must(t, c.SecurityContext.Privileged == nil, "it needs capabilities, not privilege")
	must(t, slices.Equal(c.SecurityContext.Capabilities.Drop, []corev1.Capability{"ALL"}), "all other capabilities are dropped")
	must(t, slices.Contains(c.SecurityContext.Capabilities.Add, "SYS_ADMIN"), "mount needs SYS_ADMIN")
	// containerd's default profile denies mount even with SYS_ADMIN.
	must(t, c.SecurityContext.AppArmorProfile.Type == corev1.AppArmorProfileTypeUnconfined, "AppArmor unconfined")
	must(t, in.deployment.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType, "one at a time on the node's network")
	must(t, argument(c, "--driver-name") == in.driver.Name, "the driver's name")
	must(t, len(c.Env) == 1 && c.Env[0].Name == "POD_NAME" && c.Env[0].ValueFrom.FieldRef.FieldPath == "metadata.name", "the Lease is held under the pod's name")
}

// No capability, no root, no host network; kubelet mounts what the program is told
// is mounted.
func TestUnprivilegedProvisionerPod(t *testing.T) {
	in := render(t, "overlays", "unprivileged")
	pod := in.deployment.Spec.Template.Spec
	c := pod.Containers[0]
	security := c.SecurityContext
	must(t, len(pod.Containers) == 1 && !pod.HostNetwork && pod.DNSPolicy == corev1.DNSClusterFirst, "one container on the pods' network")
	must(t, *security.RunAsNonRoot && *security.RunAsUser != 0 && !*security.AllowPrivilegeEscalation, "an ordinary user")
	must(t, slices.Equal(security.Capabilities.Drop, []corev1.Capability{"ALL"}) && security.Capabilities.Add == nil, "no capability")
	must(t, *security.ReadOnlyRootFilesystem && security.AppArmorProfile == nil && security.SeccompProfile.Type == corev1.SeccompProfileTypeRuntimeDefault, "the default profiles")
	must(t, c.LivenessProbe.HTTPGet.Host == "" && argument(c, "--http-address") == ":"+c.LivenessProbe.HTTPGet.Port.String(), "kubelet reaches the probes")
	must(t, len(pod.Volumes) == 1 && len(c.VolumeMounts) == 1, "the share and nothing else")
	volume := pod.Volumes[0].NFS
	must(t, argument(c, "--premounted") == volume.Server+":"+volume.Path+"="+c.VolumeMounts[0].MountPath, "the share that kubelet mounts")
	must(t, argument(c, "--driver-name") == in.driver.Name, "the driver's name")
	must(t, in.daemonSet.Spec.Template.Spec.HostNetwork, "the node plugin is as ever")
}

func TestNodePod(t *testing.T) {
	in := render(t)
	pod := in.daemonSet.Spec.Template.Spec
	checkPod(t, pod, "sharevol-node", "node-driver-registrar")
	must(t, pod.PriorityClassName == "system-node-critical", "system-node-critical")
	must(t, len(pod.Tolerations) == 1 && pod.Tolerations[0].Operator == corev1.TolerationOpExists && pod.Tolerations[0].Key == "" && pod.Tolerations[0].Effect == "", "it tolerates every taint")
	must(t, !*pod.AutomountServiceAccountToken, "it calls no API server")
	node, registrar := pod.Containers[0], pod.Containers[1]
	must(t, *node.SecurityContext.Privileged, "Bidirectional propagation demands privileged")
	must(t, argument(node, "--driver-name") == in.driver.Name, "the driver's name")
	must(t, argument(node, "--node-id") == "$(NODE_NAME)" && node.Env[0].ValueFrom.FieldRef.FieldPath == "spec.nodeName", "the node's name")

	socket := socketOf(node)
	must(t, argument(registrar, "--csi-address") == socket && onHost(pod, registrar, socket) == onHost(pod, node, socket), "one socket")
	must(t, argument(registrar, "--kubelet-registration-path") == onHost(pod, node, socket), "kubelet is told where the socket is on the host")
	must(t, onHost(pod, registrar, "/registration/x") == "/var/lib/kubelet/plugins_registry/x", "kubelet's registration folder")
	for _, m := range node.VolumeMounts {
		if m.Name == "pods" {
			must(t, *m.MountPropagation == corev1.MountPropagationBidirectional && onHost(pod, node, m.MountPath+"/x") == m.MountPath+"/x", "mounts reach the host, under one path")
		}
	}
}

// Every argument is one that the program takes, by its own word: with a word too
// many on its command line, that word is the only fault that it names.
func TestProgramsTakeTheirArguments(t *testing.T) {
	in := render(t)
	chart := collect(t, template(t, release{name: "sharevol", namespace: "kube-system", cluster: "v1.16.0", values: `
kubeletDir: /var/lib/k0s/kubelet
node: {sidecar: false}
provisioner:
  unprivileged: true
  adopt: [{name: cluster.local/a, server: nfs, share: /}, {name: b, server: "[fd00::1]", share: /srv}]
  premounted: [{name: a, server: nfs, share: /}, {name: b, server: "fd00::1", share: /srv}]
  extraArgs: [--default-on-delete=retain]
`}))
	for _, run := range []struct {
		program string
		c       corev1.Container
	}{
		{"provisioner", in.deployment.Spec.Template.Spec.Containers[0]},
		{"provisioner", render(t, "overlays", "unprivileged").deployment.Spec.Template.Spec.Containers[0]},
		{"nodeplugin", in.daemonSet.Spec.Template.Spec.Containers[0]},
		{"nodeplugin", render(t, "overlays", "no-sidecar").daemonSet.Spec.Template.Spec.Containers[0]},
		{"provisioner", chart.deployment.Spec.Template.Spec.Containers[0]},
		{"nodeplugin", chart.daemonSet.Spec.Template.Spec.Containers[0]},
	} {
		program, c := run.program, run.c
		args := append([]string{"run", "-trimpath", "./" + program, "surplus"}, c.Args...)
		if program == "provisioner" {
			args = append(args, "--lease-namespace=x") // which it finds in its pod
		}
		cmd := exec.Command("go", args...)
		cmd.Dir = root(t)
		out, err := cmd.CombinedOutput()
		want := c.Name + ": bad command line:\nunexpected argument \"surplus\": only flags are allowed\n--help"
		if err == nil || !strings.HasPrefix(string(out), want) {
			t.Errorf("%s %v: %v: %s", program, c.Args, err, out)
		}
	}
}

func TestBefore130AppArmorIsAnAnnotation(t *testing.T) {
	template := render(t, "overlays", "before-1.30").deployment.Spec.Template
	must(t, template.Spec.Containers[0].SecurityContext.AppArmorProfile == nil, "no field")
	must(t, template.Annotations["container.apparmor.security.beta.kubernetes.io/sharevol-provisioner"] == "unconfined", "annotation")
}

func TestSELinuxIsAnOption(t *testing.T) {
	in := render(t, "overlays", "selinux")
	for _, pod := range []corev1.PodSpec{in.deployment.Spec.Template.Spec, in.daemonSet.Spec.Template.Spec} {
		must(t, pod.SecurityContext.SELinuxOptions.Type == "spc_t", "spc_t")
	}
	must(t, render(t).deployment.Spec.Template.Spec.SecurityContext == nil, "not by default")
}

func TestExamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root(t), "manifests", "examples", "*.yaml"))
	if err == nil {
		files = append(files, filepath.Join(root(t), "manifests", "examples", "secret", "storageclass.yaml"),
			filepath.Join(root(t), "manifests", "examples", "static", "volume.yaml"))
	}
	if err != nil || len(files) != 5 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, object := range decode(t, data) {
			if class, ok := object.(*storagev1.StorageClass); ok {
				must(t, class.Provisioner == volume.DefaultDriverName, "the provisioner's name")
				if _, errs := fs.Types.ParseClass(class.Parameters, class.MountOptions, volume.Delete); len(errs) > 0 {
					t.Error(errs)
				}
			}
		}
	}
}

func TestREADMEHasTheStaticExample(t *testing.T) {
	example, err := os.ReadFile(filepath.Join(root(t), "manifests", "examples", "static", "volume.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile(filepath.Join(root(t), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(example), "\n") // without the comment
	must(t, strings.Contains(string(readme), "```yaml\n"+text+"```\n"), "README shows the example as it is")
}
