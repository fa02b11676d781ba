package manifests

import (
	"reflect"
	"slices"
	"strings"
	"testing"

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
	node, defaultNode := pod.Containers[0], defaultPod.Containers[0]
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
