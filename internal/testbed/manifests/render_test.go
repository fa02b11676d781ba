package manifests

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	policyv1beta1 "k8s.io/api/policy/v1beta1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	storagev1beta1 "k8s.io/api/storage/v1beta1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	"sharevol.dev/sharevol/internal/testbed"
)

// installation is what one kustomization, or the chart, installs.
type installation struct {
	namespace  *corev1.Namespace // nil where there is one already
	driver     *storagev1.CSIDriver
	deployment *appsv1.Deployment
	daemonSet  *appsv1.DaemonSet
	budget     *policyv1.PodDisruptionBudget // nil without the component ha
	role       *rbacv1.ClusterRole
	leases     *rbacv1.Role
	accounts   []*corev1.ServiceAccount
	others     []runtime.Object // further roles, all bindings, and classes
	yaml       []byte
}

func root(t *testing.T) string {
	t.Helper()
	host, err := testbed.NewHost(nil)
	if err != nil {
		t.Fatal(err)
	}
	return host.Root()
}

// decode reads YAML strictly: an unknown or repeated field is an error.
func decode(t *testing.T, data []byte) []runtime.Object {
	t.Helper()
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	documents := utilyaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(data)))
	defer func() { _ = documents.Close() }()
	var objects []runtime.Object
	buffer := make([]byte, 1<<20)
	for {
		n, err := documents.Read(buffer)
		if errors.Is(err, io.EOF) {
			return objects
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(bytes.TrimSpace(buffer[:n])) == 0 {
			continue
		}
		object, _, err := decoder.Decode(buffer[:n], nil, nil)
		if err != nil {
			t.Fatalf("%v in\n%s", err, buffer[:n])
		}
		objects = append(objects, object)
	}
}

// renderYAML renders a kustomization as kubectl does.
func renderYAML(t *testing.T, dir string) ([]byte, error) {
	t.Helper()
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return nil, err
	}
	return resources.AsYaml()
}

// render renders a folder of manifests.
func render(t *testing.T, path ...string) installation {
	t.Helper()
	data, err := renderYAML(t, filepath.Join(append([]string{root(t), "manifests"}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return collect(t, data)
}

// collect sorts what is installed, which must be complete.
func collect(t *testing.T, data []byte) installation {
	t.Helper()
	in := installation{yaml: data}
	for _, object := range decode(t, data) {
		switch o := object.(type) {
		case *corev1.Namespace:
			in.namespace = o
		case *storagev1.CSIDriver:
			in.driver = o
		case *storagev1beta1.CSIDriver:
			in.driver = as[storagev1.CSIDriver](t, o)
		case *appsv1.Deployment:
			in.deployment = o
		case *appsv1.DaemonSet:
			in.daemonSet = o
		case *policyv1.PodDisruptionBudget:
			in.budget = o
		case *policyv1beta1.PodDisruptionBudget:
			in.budget = as[policyv1.PodDisruptionBudget](t, o)
		case *rbacv1.ClusterRole:
			if strings.Contains(o.Name, "-adopt") {
				in.others = append(in.others, o)
			} else {
				in.role = o
			}
		case *rbacv1.Role:
			in.leases = o
		case *corev1.ServiceAccount:
			in.accounts = append(in.accounts, o)
		case *rbacv1.ClusterRoleBinding, *rbacv1.RoleBinding, *storagev1.StorageClass:
			in.others = append(in.others, o)
		default:
			t.Errorf("unexpected %T", o)
		}
	}
	if in.driver == nil || in.deployment == nil || in.daemonSet == nil || in.role == nil || in.leases == nil || len(in.accounts) != 2 {
		t.Fatalf("not complete:\n%s", data)
	}
	return in
}

// as is an object of an older version as one of today's; the apiVersion stays.
func as[T any](t *testing.T, object any) *T {
	t.Helper()
	data, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	var converted T
	if err := json.Unmarshal(data, &converted); err != nil {
		t.Fatal(err)
	}
	return &converted
}

// kustomization is one of its own, as users write it: a base, components, and what
// else is given. It returns its folder.
func kustomization(t *testing.T, base string, components []string, more string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	up, err := filepath.Rel(dir, filepath.Join(root(t), "manifests"))
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [%s/%s]\ncomponents:\n", up, base)
	for _, component := range components {
		text += fmt.Sprintf("  - %s/components/%s\n", up, component)
	}
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text+more), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// plain are the objects as they are written, by kind, namespace and name.
func plain(t *testing.T, data []byte) map[string]map[string]any {
	t.Helper()
	objects := map[string]map[string]any{}
	for document := range strings.SplitSeq("\n"+string(data), "\n---") {
		var object map[string]any
		if err := yaml.Unmarshal([]byte(document), &object); err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		if len(object) == 0 {
			continue
		}
		u := unstructured.Unstructured{Object: object}
		key := u.GetKind() + " " + u.GetNamespace() + "/" + u.GetName()
		must(t, objects[key] == nil, key+" is there twice")
		objects[key] = object
	}
	return objects
}
