package controlplane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
)

// Apply applies one of the repository's kustomizations, as a user does. It is an error if the API server does
// not keep a field as it stands in the manifests: old servers drop those that they do not know.
func (c *ControlPlane) Apply(ctx context.Context, kustomization string) error {
	dir := c.Kustomization(kustomization)
	if _, err := c.Kubectl(ctx, "apply", "-k", dir); err != nil {
		return err
	}
	rendered, err := c.Kubectl(ctx, "kustomize", dir)
	if err != nil {
		return err
	}
	stored, err := c.Kubectl(ctx, "get", "-k", dir, "-o", "json")
	if err != nil {
		return err
	}
	wanted, err := objects(rendered)
	if err != nil {
		return fmt.Errorf("read what %s renders: %w", dir, err)
	}
	var list unstructured.UnstructuredList
	if err := json.Unmarshal([]byte(stored), &list); err != nil {
		return fmt.Errorf("read what the API server has: %w", err)
	}
	if len(wanted) == 0 {
		return fmt.Errorf("%s renders nothing", dir)
	}
	kept := map[string]map[string]any{}
	for i := range list.Items {
		kept[name(&list.Items[i])] = list.Items[i].Object
	}
	var all []error
	for _, object := range wanted {
		for _, fault := range lost(object.Object, kept[name(object)], "") {
			all = append(all, fmt.Errorf("%s: %s", name(object), fault))
		}
	}
	return errors.Join(all...)
}

// objects reads YAML documents.
func objects(text string) ([]*unstructured.Unstructured, error) {
	decoder := utilyaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 1<<16)
	var all []*unstructured.Unstructured
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(object)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all = append(all, object)
	}
}

func name(object *unstructured.Unstructured) string {
	return strings.TrimSuffix(object.GetKind()+" "+object.GetNamespace()+"/"+object.GetName(), "/")
}

// saysNothing reports whether a value is an empty map or list, which is the same as none.
func saysNothing(value any) bool {
	switch value := value.(type) {
	case map[string]any:
		return len(value) == 0
	case []any:
		return len(value) == 0
	}
	return false
}

// lost says what of wanted, at a path, is not the same in kept. What else is in kept are the server's defaults.
func lost(wanted, kept any, path string) []string {
	switch wanted := wanted.(type) {
	case map[string]any:
		kept, _ := kept.(map[string]any)
		var all []string
		for key, value := range wanted {
			found, ok := kept[key]
			if !ok && saysNothing(value) {
				continue
			}
			if !ok {
				all = append(all, fmt.Sprintf("%s.%s is dropped", path, key))
				continue
			}
			all = append(all, lost(value, found, path+"."+key)...)
		}
		return all
	case []any:
		kept, _ := kept.([]any)
		if len(kept) != len(wanted) {
			return []string{fmt.Sprintf("%s has %d elements, not %d", path, len(kept), len(wanted))}
		}
		var all []string
		for i, value := range wanted {
			all = append(all, lost(value, kept[i], fmt.Sprintf("%s[%d]", path, i))...)
		}
		return all
	}
	if wanted != kept {
		return []string{fmt.Sprintf("%s is %v, not %v", path, kept, wanted)}
	}
	return nil
}
