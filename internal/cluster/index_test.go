package cluster

import (
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
)

// The cache asks for the keys of what a volume was and of what it is, for each index.
func TestKeysAreFoundOnceForAllIndices(t *testing.T) {
	asked := 0
	l := &located{of: func(pv *v1.PersistentVolume) keys {
		asked++
		return keys{at: []string{pv.Name}, share: []string{"on " + pv.Name}}
	}}
	at, share := l.index(func(k keys) []string { return k.at }), l.index(func(k keys) []string { return k.share })
	want := func(count int, pv *v1.PersistentVolume) {
		t.Helper()
		for range 3 {
			first, _ := at(pv)
			second, _ := share(pv)
			if !slices.Equal(first, []string{pv.Name}) || !slices.Equal(second, []string{"on " + pv.Name}) {
				t.Errorf("%s is at %v and %v", pv.Name, first, second)
			}
		}
		if asked != count {
			t.Errorf("asked %d times, want %d", asked, count)
		}
	}
	volumes := []*v1.PersistentVolume{{}, {}, {}}
	for i, name := range []string{"a", "b", "c"} {
		volumes[i].Name = name
	}
	want(1, volumes[0])
	want(2, volumes[1])
	want(2, volumes[0])
	want(2, volumes[1])
	want(3, volumes[2])
	want(3, volumes[1])
	want(4, volumes[0]) // of three only two are remembered
	if none, err := at("no volume"); err != nil || none != nil {
		t.Errorf("%v, %v", none, err)
	}
}
