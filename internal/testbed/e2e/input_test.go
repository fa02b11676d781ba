package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sharevol.dev/sharevol/internal/testbed/scene"
)

// events returns the warnings about an object.
func (w world) events(ctx context.Context, object, reason string) ([]corev1.Event, error) {
	list, err := w.client.CoreV1().Events(metav1.NamespaceAll).List(ctx, metav1.ListOptions{
		FieldSelector: "type=Warning,reason=" + reason + ",involvedObject.name=" + object,
	})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

func (w world) waitForEvent(t *testing.T, object, reason, text string) corev1.Event {
	t.Helper()
	var found corev1.Event
	err := w.Wait(t.Context(), fmt.Sprintf("an event %s of %s", reason, object), func(ctx context.Context) (bool, string, error) {
		events, err := w.events(ctx, object, reason)
		for _, found = range events {
			if strings.Contains(found.Message, text) {
				return true, "", nil
			}
		}
		return false, fmt.Sprint(events, err), nil
	})
	check(t, err)
	return found
}

func entries(t *testing.T, dir string) int {
	t.Helper()
	list, err := os.ReadDir(dir)
	check(t, err)
	return len(list)
}

// One clear event on the claim, which lists every fault; nothing is made.
func (w world) testBadInput(t *testing.T) {
	dir := w.NFS.Dir(scene.Share)
	before := entries(t, dir)
	w.class(t, "bad", func(class *storagev1.StorageClass) {
		class.Parameters = map[string]string{"share": "srv", "onDelete": "shred", "block": "true"}
		class.MountOptions = []string{"suid"}
	})
	w.claim(t, "bad-class", "bad", func(claim *corev1.PersistentVolumeClaim) {
		claim.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
	})
	w.claim(t, "selector", "sharevol", func(claim *corev1.PersistentVolumeClaim) {
		claim.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
	})
	w.claim(t, "source", "sharevol", func(claim *corev1.PersistentVolumeClaim) {
		claim.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: "selector"}
	})
	w.claim(t, "block", "sharevol", func(claim *corev1.PersistentVolumeClaim) {
		block := corev1.PersistentVolumeBlock
		claim.Spec.VolumeMode = &block
	})
	for claim, faults := range map[string][]string{
		"bad-class": {
			`parameters[server]: Required value`, `parameters[share]: Invalid value: "srv"`, `parameters[onDelete]: Invalid value: "shred": must be one of delete, retain, archive`,
			`parameters[block]: Invalid value: "true": unknown parameter, must be one of type, server, share, subDir`, `mountOptions[0]`, `claim.spec.selector: Forbidden`,
		},
		"selector": {"claim.spec.selector: Forbidden"},
		"source":   {"claim.spec.dataSource: Forbidden"},
		"block":    {"does not support block volume provisioning"},
	} {
		event := w.waitForEvent(t, claim, "ProvisioningFailed", faults[0])
		for _, fault := range faults {
			if !strings.Contains(event.Message, fault) {
				t.Errorf("%s: the event lacks %q: %s", claim, fault, event.Message)
			}
		}
		if events, err := w.events(t.Context(), claim, "ProvisioningFailed"); err != nil || len(events) != 1 {
			t.Errorf("%s: %d different events, %v", claim, len(events), err)
		}
	}
	// A change of the claim is acted on at once, and adds no event within the minute.
	failures := func() string {
		for line := range strings.Lines(get(t, "http://127.0.0.1:29801/metrics")) {
			if value, found := strings.CutPrefix(line, `controller_persistentvolumeclaim_provision_failed_total{class="bad"} `); found {
				return value
			}
		}
		return ""
	}
	first := failures()
	_, err := w.Cluster.Kubectl(t.Context(), "annotate", "pvc", "bad-class", "try=again")
	check(t, err)
	err = w.Wait(t.Context(), "another try", func(context.Context) (bool, string, error) {
		now := failures()
		return now != first, now, nil
	})
	check(t, err)
	if events, err := w.events(t.Context(), "bad-class", "ProvisioningFailed"); err != nil || len(events) != 1 {
		t.Errorf("%d different events, %v", len(events), err)
	}
	for _, claim := range []string{"selector", "source", "block"} {
		check(t, w.DeleteClaim(t.Context(), claim))
	}
	if after := entries(t, dir); after != before {
		t.Errorf("%d entries on the share, %d before", after, before)
	}
}

// The claim that testBadInput has left: a repeated failure is counted in the same
// event, after a minute.
func (w world) testRepeatedEvent(t *testing.T) {
	err := w.Wait(t.Context(), "the event to be counted", func(ctx context.Context) (bool, string, error) {
		events, err := w.events(ctx, "bad-class", "ProvisioningFailed")
		return len(events) == 1 && events[0].Count > 1, fmt.Sprint(events), err
	})
	check(t, err)
	check(t, w.DeleteClaim(t.Context(), "bad-class"))
}
