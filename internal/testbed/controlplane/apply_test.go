package controlplane

import (
	"slices"
	"testing"
)

// What the API server drops or changes is told; what it adds is not.
func TestLostFields(t *testing.T) {
	const wanted = "{spec: {fsGroupPolicy: File, modes: [a, b], empty: {}, count: 3, inner: {deep: true}}}"
	for name, one := range map[string]struct {
		kept string
		want []string
	}{
		"nothing":   {wanted, nil},
		"defaults":  {"{status: {x: y}, spec: {fsGroupPolicy: File, modes: [a, b], empty: {}, count: 3, inner: {deep: true, more: 1}}}", nil},
		"dropped":   {"{spec: {modes: [a, b], empty: {}, count: 3, inner: {deep: true}}}", []string{".spec.fsGroupPolicy is dropped"}},
		"changed":   {"{spec: {fsGroupPolicy: None, modes: [a, b], empty: {}, count: 3, inner: {deep: true}}}", []string{".spec.fsGroupPolicy is None, not File"}},
		"shorter":   {"{spec: {fsGroupPolicy: File, modes: [a], empty: {}, count: 3, inner: {deep: true}}}", []string{".spec.modes has 1 elements, not 2"}},
		"reordered": {"{spec: {fsGroupPolicy: File, modes: [b, a], empty: {}, count: 3, inner: {deep: true}}}", []string{".spec.modes[0] is b, not a", ".spec.modes[1] is a, not b"}},
		"flat":      {"{spec: {fsGroupPolicy: File, modes: [a, b], empty: {}, count: 3, inner: yes}}", []string{".spec.inner.deep is dropped"}},
		"all":       {"{}", []string{".spec is dropped"}},
	} {
		object := func(text string) any {
			all, err := objects("{apiVersion: v1, kind: X}\n---\n" + text[:1] + "apiVersion: v1, kind: X, " + text[1:])
			if err != nil || len(all) != 2 {
				t.Fatalf("%s: %d objects, %v", text, len(all), err)
			}
			return all[1].Object
		}
		if got := lost(object(wanted), object(one.kept), ""); !slices.Equal(got, one.want) {
			t.Errorf("%s: %q, not %q", name, got, one.want)
		}
	}
}
