package manifests

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// onHost is the host's path of a path in a container; none where it is the container's own.
func onHost(pod corev1.PodSpec, c corev1.Container, path string) string {
	for _, m := range c.VolumeMounts {
		rest, found := strings.CutPrefix(path, m.MountPath+"/")
		for _, v := range pod.Volumes {
			if found && v.Name == m.Name {
				return v.HostPath.Path + "/" + rest
			}
		}
	}
	return ""
}

func socketOf(c corev1.Container) string {
	return strings.TrimPrefix(argument(c, "--endpoint"), "unix://")
}

// One container, which kubelet finds at the same socket, and which is else the same.
func TestNodePodThatRegistersItself(t *testing.T) {
	byDefault, in := render(t), render(t, "overlays", "no-sidecar")
	pod, defaultPod := in.daemonSet.Spec.Template.Spec, byDefault.daemonSet.Spec.Template.Spec
	checkPod(t, pod, "sharevol-node")
	node, defaultNode := pod.Containers[0], defaultPod.Containers[1]
	socket := socketOf(node)
	must(t, onHost(pod, node, socket) == socket, "kubelet is told of the socket by the program's own path")
	must(t, onHost(defaultPod, defaultNode, socketOf(defaultNode)) == socket, "the socket is where it is by default")
	registry := argument(node, "--registration-dir")
	must(t, onHost(pod, node, registry+"/x") == "/var/lib/kubelet/plugins_registry/x", "kubelet's registration folder")
	must(t, argument(defaultNode, "--registration-dir") == "", "by default node-driver-registrar registers")

	own := func(arg string) bool {
		return strings.HasPrefix(arg, "--endpoint=") || strings.HasPrefix(arg, "--registration-dir=")
	}
	must(t, slices.Equal(slices.DeleteFunc(slices.Clone(node.Args), own), slices.DeleteFunc(slices.Clone(defaultNode.Args), own)), "the other arguments are the default's")
	node.Args, node.VolumeMounts = defaultNode.Args, slices.DeleteFunc(node.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == "plugin" || m.Name == "registration" })
	defaultNode.VolumeMounts = slices.DeleteFunc(slices.Clone(defaultNode.VolumeMounts), func(m corev1.VolumeMount) bool { return m.Name == "plugin" })
	must(t, reflect.DeepEqual(node, defaultNode), "all else of the container is the default's")
	pod.Containers = defaultPod.Containers
	must(t, reflect.DeepEqual(pod, defaultPod), "all else of the pod is the default's")
	must(t, reflect.DeepEqual(in.deployment, byDefault.deployment), "the provisioner is as ever")
}

// The component goes with each of the others, in whatever order.
func TestNodePodThatRegistersItselfCombines(t *testing.T) {
	for _, components := range [][]string{
		{"no-sidecar", "selinux", "before-1.30"},
		{"before-1.30", "selinux", "no-sidecar"},
		{"unprivileged", "no-sidecar", "selinux"},
	} {
		in := renderComponents(t, components)
		for _, pod := range []corev1.PodSpec{in.deployment.Spec.Template.Spec, in.daemonSet.Spec.Template.Spec} {
			must(t, len(pod.Containers) == 1, fmt.Sprintf("%s: one container", components))
			must(t, pod.SecurityContext.SELinuxOptions.Type == "spc_t", fmt.Sprintf("%s: spc_t", components))
		}
		must(t, in.daemonSet.Spec.Template.Spec.Containers[0].Name == "sharevol-node", fmt.Sprintf("%s: the node plugin is there", components))
		must(t, in.daemonSet.Spec.UpdateStrategy.RollingUpdate.MaxSurge == nil && in.daemonSet.Spec.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType,
			"one at a time on a node: an old one that ends would take the new one's socket away")
	}
}

// renderComponents renders the base with components.
func renderComponents(t *testing.T, components []string) installation {
	t.Helper()
	manifests := filepath.Join(root(t), "manifests")
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	up, err := filepath.Rel(dir, manifests)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [%s/base]\ncomponents:\n", up)
	for _, component := range components {
		text += fmt.Sprintf("  - %s/components/%s\n", up, component)
	}
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	back, err := filepath.Rel(manifests, dir)
	if err != nil {
		t.Fatal(err)
	}
	return render(t, back)
}
