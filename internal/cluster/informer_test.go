package cluster

import (
	"context"
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
)

// paged serves volumes as an API server does, one on a page.
type paged struct {
	*testing.T
	volumes []v1.PersistentVolume
	sent    *v1.PersistentVolumeList // the page before
}

func (p *paged) List(_ context.Context, options metav1.ListOptions) (*v1.PersistentVolumeList, error) {
	if options.ResourceVersion != "" || options.Limit == 0 {
		p.Errorf("asked for all at once: %+v", options)
	}
	at := 0
	if options.Continue != "" {
		at = slices.IndexFunc(p.volumes, func(pv v1.PersistentVolume) bool { return pv.Name == options.Continue })
		if before := p.sent.Items[0]; before.ManagedFields != nil || before.Annotations["note"] != "b" {
			p.Errorf("asked for more while there is %+v", before.ObjectMeta)
		}
	}
	p.sent = &v1.PersistentVolumeList{ListMeta: metav1.ListMeta{ResourceVersion: "1"}, Items: []v1.PersistentVolume{*p.volumes[at].DeepCopy()}}
	if at+1 < len(p.volumes) {
		p.sent.Continue = p.volumes[at+1].Name
	}
	return p.sent, nil
}

func (p *paged) Watch(context.Context, metav1.ListOptions) (watch.Interface, error) {
	return watch.NewFake(), nil
}

// The list comes in pages, of each of which the managedFields are gone before the next.
func TestInformerIsFilledInPages(t *testing.T) {
	server := &paged{T: t}
	for _, name := range []string{"one", "two", "three"} {
		pv := fullVolume()
		pv.Name = name
		server.volumes = append(server.volumes, *pv)
	}
	informer, err := newInformer(fake.NewClientset(), server, &v1.PersistentVolume{}, newInterner().transform)
	check(t, err)
	go informer.RunWithContext(t.Context())
	waitUntil(t, "the cache is filled", informer.HasSynced)
	if names := informer.GetStore().ListKeys(); len(names) != 3 {
		t.Errorf("cached %q", names)
	}
}
