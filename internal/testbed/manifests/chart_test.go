package manifests

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"sharevol.dev/sharevol/internal/fs"
	"sharevol.dev/sharevol/internal/volume"
)

// release is the chart's way to install the same as a combination of components.
func (c combination) release() release {
	r := release{name: "sharevol", namespace: "sharevol-system", cluster: "v1.37.1"}
	values := map[string]any{}
	provisioner := map[string]any{}
	if c.has("from-csi-driver-nfs") {
		values["driverName"] = "nfs.csi.k8s.io"
	}
	if c.adopt {
		provisioner["adopt"] = []any{map[string]any{"name": "cluster.local/nfs-subdir-external-provisioner", "server": "nfs.example.com", "share": "/srv/volumes"}}
	}
	if c.has("unprivileged") {
		provisioner["unprivileged"] = true
		provisioner["premounted"] = []any{map[string]any{"name": "volumes", "server": "nfs.example.com", "share": "/srv/volumes"}}
	}
	if c.has("no-sidecar") {
		values["node"] = map[string]any{"sidecar": false}
	}
	if c.has("selinux") {
		values["selinux"] = true
	}
	if c.has("ha") || c.has("ha-before-1.21") {
		provisioner["ha"] = true
	}
	switch {
	case c.has("legacy"):
		r.cluster, r.namespace = "v1.16.15", "kube-system"
	case c.has("ha-before-1.21"):
		r.cluster = "v1.20.4-gke.100"
	case c.has("before-1.30"):
		r.cluster = "v1.29.3+k3s1"
	}
	values["provisioner"] = provisioner
	text, err := yaml.Marshal(values)
	if err != nil {
		panic(err) // plain maps and strings
	}
	r.values = string(text)
	return r
}

// kustomized renders a combination with the same share mounted as in its release.
func (c combination) kustomized(t *testing.T) []byte {
	t.Helper()
	more := ""
	if c.has("unprivileged") {
		overlay, err := os.ReadFile(filepath.Join(root(t), "manifests", "overlays", "unprivileged", "kustomization.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		_, patches, _ := strings.Cut(string(overlay), "\npatches:\n")
		more = "patches:\n" + patches
	}
	data, err := renderYAML(t, kustomization(t, c.base(), c.names, more))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// The chart installs what the components do, whatever is chosen.
func TestChartEqualsComponents(t *testing.T) {
	for _, c := range combinations() {
		t.Run(c.String(), func(t *testing.T) {
			r, want := c.release(), c.kustomized(t)
			equal(t, template(t, r), want)
			if c.adopt || c.has("selinux") {
				return // for time's sake
			}
			if faults := helmLint(t, r); faults != nil {
				t.Error(faults)
			}
			// The version by hand, as for helm template.
			r.values += fmt.Sprintf("kubernetesVersion: %q\n", strings.TrimPrefix(r.cluster, "v"))
			r.cluster = "v1.31.0"
			equal(t, template(t, r), want)
		})
	}
}

// template renders a release that must render.
func template(t *testing.T, r release) []byte {
	t.Helper()
	data, err := helmTemplate(t, r)
	if err != nil {
		t.Fatal(err)
	}
	must(t, !strings.Contains(string(data), "<no value>"), "a value is missing")
	return data
}

// helmLabels are what only Helm adds, to each object.
var helmLabels = []string{"app.kubernetes.io/managed-by", "helm.sh/chart"}

// equal holds what the chart renders against what kustomize does. Helm makes the
// namespace by itself.
func equal(t *testing.T, chart, kustomized []byte) {
	t.Helper()
	got, want := plain(t, chart), plain(t, kustomized)
	for key, object := range want {
		if strings.HasPrefix(key, "Namespace ") {
			continue
		}
		if got[key] == nil {
			t.Errorf("the chart has no %s", key)
			continue
		}
		u := unstructured.Unstructured{Object: got[key]}
		labels := u.GetLabels()
		for _, label := range helmLabels {
			must(t, labels[label] != "", key+": no "+label)
			delete(labels, label)
		}
		u.SetLabels(labels)
		for _, d := range differences(key, u.Object, object) {
			t.Error(d)
		}
	}
	for key := range got {
		must(t, want[key] != nil, "only the chart has "+key)
	}
}

// differences are the places at which two values are not the same.
func differences(place string, a, b any) []string {
	x, xok := a.(map[string]any)
	y, yok := b.(map[string]any)
	if xok && yok {
		var all []string
		keys := map[string]bool{}
		for key := range x {
			keys[key] = true
		}
		for key := range y {
			keys[key] = true
		}
		for key := range keys {
			all = append(all, differences(place+"."+key, x[key], y[key])...)
		}
		slices.Sort(all)
		return all
	}
	xs, xok := a.([]any)
	ys, yok := b.([]any)
	if xok && yok && len(xs) == len(ys) {
		var all []string
		for i := range xs {
			all = append(all, differences(fmt.Sprintf("%s[%d]", place, i), xs[i], ys[i])...)
		}
		return all
	}
	if reflect.DeepEqual(a, b) || none(a) && none(b) {
		return nil
	}
	return []string{fmt.Sprintf("%s: the chart has %v, kustomize %v", place, a, b)}
}

// none says whether a field is as good as left out.
func none(value any) bool {
	fields, isMap := value.(map[string]any)
	list, isList := value.([]any)
	return value == nil || isMap && len(fields) == 0 || isList && len(list) == 0
}

// Which version has what, at the border of each.
func TestChartKnowsVersions(t *testing.T) {
	for version, want := range map[string]combination{
		"v1.15.12": {names: []string{"legacy", "ha-before-1.21"}}, "v1.18.20": {names: []string{"legacy", "ha-before-1.21"}},
		"v1.19.16": {names: []string{"before-1.30", "ha-before-1.21"}}, "v1.20.15": {names: []string{"before-1.30", "ha-before-1.21"}},
		"v1.21.0": {names: []string{"before-1.30", "ha"}}, "v1.29.15": {names: []string{"before-1.30", "ha"}}, "v1.30.0": {names: []string{"ha"}},
	} {
		r := want.release()
		r.cluster = version
		in := collect(t, template(t, r))
		in.namespace = &corev1.Namespace{} // which is no choice of the chart's
		if want.has("legacy") {
			in.namespace = nil
		}
		checkVersions(t, in, want)
		checkChoices(t, in, want)
	}
	if _, err := helmTemplate(t, release{name: "sharevol", namespace: "kube-system", cluster: "v1.14.10"}); err == nil {
		t.Error("1.14 is too old")
	}
	// From 1.17 on it may be in any namespace.
	r := combination{names: []string{"legacy"}}.release()
	r.cluster, r.namespace = "v1.17.17", "storage"
	checkNames(t, collect(t, template(t, r)))
}

// Releases of several drivers share no name, neither in the cluster nor in a namespace,
// and no pod is selected by two. (A release of the same driver would be in the way: its
// CSIDriver has the same name.)
func TestReleasesDoNotCollide(t *testing.T) {
	seen := map[string]string{}
	labels := map[string]string{}
	for i, r := range []release{
		{name: "sharevol", namespace: "sharevol-system"},
		{name: "sharevol", namespace: "storage", values: "driverName: nfs.csi.k8s.io"},
		{name: "second", namespace: "sharevol-system", values: "driverName: second.example.com\nkubeletDir: /var/lib/k0s/kubelet"},
		{name: "second", namespace: "kube-system", values: "driverName: third.example.com\nprovisioner: {adopt: [{name: a/b, server: nfs, share: /}]}"},
		{name: "sharevol-4", namespace: "kube-system", values: "driverName: fourth.example.com\nprovisioner: {ha: true, adopt: [{name: a/c, server: nfs, share: /}]}"},
	} {
		r.cluster = "v1.37.1"
		data := template(t, r)
		in := collect(t, data)
		checkNames(t, in)
		must(t, in.deployment.Namespace == r.namespace, "the release's namespace")
		id := fmt.Sprint(i, " ", r.name, " in ", r.namespace)
		for key, object := range plain(t, data) {
			must(t, seen[key] == "", key+" of "+id+" is that of "+seen[key])
			seen[key] = id
			u := unstructured.Unstructured{Object: object}
			must(t, u.GetNamespace() == "" || u.GetNamespace() == r.namespace, key)
		}
		selector := r.namespace + " " + fmt.Sprint(in.deployment.Spec.Selector.MatchLabels)
		must(t, labels[selector] == "", selector+" of "+id)
		labels[selector] = id
		if r.namespace == "kube-system" {
			must(t, len(in.leases.Rules) == 2 && slices.Equal(in.leases.Rules[1].ResourceNames, []string{in.driver.Name}), "in kube-system it has its own Lease and no other")
		}
	}
}

// The classes are as in the list, and as the provisioner reads them.
func TestChartMakesClasses(t *testing.T) {
	in := collect(t, template(t, release{name: "sharevol", namespace: "sharevol-system", cluster: "v1.37.1", values: `
storageClasses:
  - {name: plain, server: nfs.example.com, share: /srv/volumes}
  - name: full
    server: "fd00::1"
    share: /
    default: true
    parameters: {onDelete: archive, uid: "1000", subDir: "${pvc.metadata.namespace}/${pv.metadata.name}"}
    mountOptions: [nfsvers=4.2, hard]
    reclaimPolicy: Retain
    volumeBindingMode: WaitForFirstConsumer
`}))
	var classes []*storagev1.StorageClass
	for _, object := range in.others {
		if class, ok := object.(*storagev1.StorageClass); ok {
			classes = append(classes, class)
			_, errs := fs.Types.ParseClass(class.Parameters, class.MountOptions, volume.Delete)
			must(t, class.Provisioner == volume.DefaultDriverName && len(errs) == 0, fmt.Sprint(class.Name, class.Provisioner, errs))
		}
	}
	if len(classes) != 2 {
		t.Fatal(classes)
	}
	const byDefault = "storageclass.kubernetes.io/is-default-class"
	must(t, classes[0].Annotations[byDefault] == "" && len(classes[0].Parameters) == 2 && classes[0].ReclaimPolicy == nil && classes[0].VolumeBindingMode == nil, "the plain one")
	full := classes[1]
	must(t, full.Annotations[byDefault] == "true" && *full.ReclaimPolicy == corev1.PersistentVolumeReclaimRetain && *full.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer, "the full one")
	must(t, full.Parameters["server"] == "fd00::1" && full.Parameters["onDelete"] == "archive" && len(full.Parameters) == 5 && len(full.MountOptions) == 2, fmt.Sprint(full.Parameters))
}
