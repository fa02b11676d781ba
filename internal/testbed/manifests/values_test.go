package manifests

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Values that no component has, all at once, against the same by patches.
func TestChartValuesEqualPatches(t *testing.T) {
	const values = `
kubeletDir: /var/lib/k0s/kubelet
logLevel: 4
imagePullPolicy: Always
imagePullSecrets: [{name: registry}]
provisioner:
  image: {repository: localhost:5000/p, tag: v9}
  httpAddress: :9001
  extraArgs: [--default-on-delete=retain, --worker-threads=8]
  resources: {limits: {memory: 1Gi}}
  tolerations: [{key: infra, operator: Exists, effect: NoSchedule}]
node:
  image: {repository: localhost:5000/n, tag: v9}
  httpAddress: 127.0.0.2:9002
  resources: {requests: {cpu: 1}}
  tolerations: []
registrar:
  image: {repository: localhost:5000/r, tag: v9}
  httpAddress: "[::1]:9003"
  extraArgs: [--timeout=30s]
  resources: {limits: {memory: 1Gi}}
`
	const patches = `
images:
  - {name: ghcr.io/sharevol/sharevol-provisioner, newName: "localhost:5000/p", newTag: v9}
  - {name: ghcr.io/sharevol/sharevol-node, newName: "localhost:5000/n", newTag: v9}
  - {name: registry.k8s.io/sig-storage/csi-node-driver-registrar, newName: "localhost:5000/r", newTag: v9}
patches:
  - target: {kind: Deployment}
    patch: |
      - {op: add, path: /spec/template/spec/imagePullSecrets, value: [{name: registry}]}
      - {op: add, path: /spec/template/spec/tolerations, value: [{key: infra, operator: Exists, effect: NoSchedule}]}
      - {op: add, path: /spec/template/spec/containers/0/imagePullPolicy, value: Always}
      - {op: replace, path: /spec/template/spec/containers/0/resources/limits/memory, value: 1Gi}
      - {op: replace, path: /spec/template/spec/containers/0/livenessProbe/httpGet, value: {port: 9001, path: /healthz}}
      - {op: replace, path: /spec/template/spec/containers/0/readinessProbe/httpGet, value: {port: 9001, path: /readyz}}
      - op: replace
        path: /spec/template/spec/containers/0/args
        value: [--driver-name=csi.sharevol.dev, --http-address=:9001, -v=4, --default-on-delete=retain, --worker-threads=8]
  - target: {kind: DaemonSet}
    patch: |
      - {op: add, path: /spec/template/spec/imagePullSecrets, value: [{name: registry}]}
      - {op: remove, path: /spec/template/spec/tolerations}
      - {op: replace, path: /spec/template/spec/volumes/0/hostPath/path, value: /var/lib/k0s/kubelet/plugins/csi.sharevol.dev}
      - {op: replace, path: /spec/template/spec/volumes/1/hostPath/path, value: /var/lib/k0s/kubelet/plugins_registry}
      - {op: replace, path: /spec/template/spec/volumes/2/hostPath/path, value: /var/lib/k0s/kubelet/pods}
      - {op: replace, path: /spec/template/spec/containers/0/volumeMounts/1/mountPath, value: /var/lib/k0s/kubelet/pods}
      - {op: add, path: /spec/template/spec/containers/0/imagePullPolicy, value: Always}
      - {op: replace, path: /spec/template/spec/containers/0/resources/requests/cpu, value: 1}
      - {op: replace, path: /spec/template/spec/containers/0/livenessProbe/httpGet, value: {host: 127.0.0.2, port: 9002, path: /healthz}}
      - {op: replace, path: /spec/template/spec/containers/0/readinessProbe/httpGet, value: {host: 127.0.0.2, port: 9002, path: /readyz}}
      - op: replace
        path: /spec/template/spec/containers/0/args
        value: [--driver-name=csi.sharevol.dev, "--endpoint=unix:///csi/csi.sock", --node-id=$(NODE_NAME), --kubelet-dir=/var/lib/k0s/kubelet,
          "--http-address=127.0.0.2:9002", -v=4]
      - {op: add, path: /spec/template/spec/containers/1/imagePullPolicy, value: Always}
      - {op: replace, path: /spec/template/spec/containers/1/resources/limits/memory, value: 1Gi}
      - {op: replace, path: /spec/template/spec/containers/1/livenessProbe/httpGet, value: {host: "::1", port: 9003, path: /healthz}}
      - op: replace
        path: /spec/template/spec/containers/1/args
        value: [--csi-address=/csi/csi.sock, --kubelet-registration-path=/var/lib/k0s/kubelet/plugins/csi.sharevol.dev/csi.sock,
          "--http-endpoint=[::1]:9003", --v=4, --timeout=30s]
`
	kustomized, err := renderYAML(t, kustomization(t, "base", nil, patches))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, template(t, release{name: "sharevol", namespace: "sharevol-system", cluster: "v1.37.1", values: values}), kustomized)
}

// A wrong value is refused with a message that names it and says what is wrong.
func TestChartRefusesWrongValues(t *testing.T) {
	for values, want := range map[string]string{
		"driverName: Csi_1": "'/driverName': 'Csi_1' does not match pattern", "driver: x": "additional properties 'driver' not allowed",
		"kubeletDir: /var/lib/kubelet/": "'/kubeletDir'", "kubeletDir: /": "'/kubeletDir'", "kubeletDir: /a/../b": "'/kubeletDir'",
		"kubernetesVersion: 1.20": "'/kubernetesVersion': got number, want string", `kubernetesVersion: "2"`: "'/kubernetesVersion'",
		"logLevel: high": "'/logLevel': got string, want integer", `selinux: "no"`: "'/selinux': got string, want boolean",
		"imagePullPolicy: Sometimes":                                   "'/imagePullPolicy': value must be one of",
		"provisioner: {replicas: 2}":                                   "'/provisioner': additional properties 'replicas' not allowed",
		"provisioner: {httpAddress: localhost}":                        "'/provisioner/httpAddress'",
		"node: {httpAddress: \"\"}":                                    "'/node/httpAddress'",
		"provisioner: {runAsUser: 0}":                                  "'/provisioner/runAsUser': minimum: got 0, want 1",
		"provisioner: {image: {repository: \"\"}}":                     "'/provisioner/image/repository': minLength: got 0, want 1",
		"registrar: {image: {tag: \"\"}}":                              "'/registrar/image/tag': minLength: got 0, want 1",
		"provisioner: {adopt: [{name: a/b}]}":                          "'/provisioner/adopt/0': missing properties 'server', 'share'",
		"provisioner: {extraArgs: [word]}":                             "'/provisioner/extraArgs/0': 'word' does not match pattern",
		"provisioner: {extraArgs: [--http-address=:1]}":                "provisioner.extraArgs: --http-address=:1 is set by the value provisioner.httpAddress",
		"registrar: {extraArgs: [--v=9]}":                              "registrar.extraArgs: --v=9 is set by the value logLevel",
		"provisioner: {unprivileged: true}":                            "provisioner.premounted: must name at least one share",
		"provisioner: {premounted: [{name: a, server: b, share: /c}]}": "provisioner.premounted: only with provisioner.unprivileged=true",
		"provisioner: {unprivileged: true, httpAddress: \"127.0.0.1:1\", premounted: [{name: a, server: b, share: /c}]}": "can't be reached by kubelet",
		"provisioner: {unprivileged: true, premounted: [{name: A, server: b, share: /c}]}":                               "'/provisioner/premounted/0/name'",
		"storageClasses: [{name: a, server: b, share: c}]":                                                               "'/storageClasses/0/share': 'c' does not match pattern",
		"storageClasses: [{name: a, server: \"nfs:/x\", share: /c}]":                                                     "'/storageClasses/0/server'",
		"storageClasses: [{name: a, server: b, share: /c, parameters: {uid: 1}}]":                                        "'/storageClasses/0/parameters/uid': got number, want string",
		"storageClasses: [{name: a, server: b, share: /c, onDelete: retain}]":                                            "additional properties 'onDelete' not allowed",
		"kubernetesVersion: \"1.16\"":                                                                                    "Kubernetes 1.16 allows these pods' priority classes in kube-system only: install with --namespace kube-system",
	} {
		_, err := helmTemplate(t, release{name: "sharevol", namespace: "sharevol-system", cluster: "v1.37.1", values: values})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v\nwant %s", values, err, want)
		}
	}
}

// Every value that the schema knows has its default, and its comment, in values.yaml,
// and the chart is of the version that the other manifests install.
func TestChartIsComplete(t *testing.T) {
	chart := filepath.Join(root(t), "manifests", "chart")
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(chart, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	type schema struct{ Properties map[string]schema }
	var known schema
	if err := json.Unmarshal([]byte(read("values.schema.json")), &known); err != nil {
		t.Fatal(err)
	}
	var compare func(place string, s schema, values map[string]any)
	compare = func(place string, s schema, values map[string]any) {
		for name, inner := range s.Properties {
			value, found := values[name]
			must(t, found || name == "global", place+name+" is not in values.yaml")
			if object, ok := value.(map[string]any); ok {
				compare(place+name+".", inner, object)
			}
		}
	}
	compare("", known, parseValues(t, read("values.yaml")))

	image := render(t).deployment.Spec.Template.Spec.Containers[0].Image
	_, tag, _ := strings.Cut(image, ":")
	about := parseValues(t, read("Chart.yaml"))
	must(t, about["appVersion"] == tag && "v"+about["version"].(string) == tag, "the chart's version is not "+tag)
}
