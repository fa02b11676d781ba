package follow

import (
	"context"
	"errors"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// A watch that ends is taken up where it ended, and one that fails ends it all.
func TestWatchGoesOn(t *testing.T) {
	volume := func(version string) *corev1.PersistentVolume {
		return &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: version, ResourceVersion: version}}
	}
	var from, seen []string
	opened := 0
	open := func(_ context.Context, options metav1.ListOptions) (watch.Interface, error) {
		from = append(from, options.ResourceVersion)
		events := watch.NewFakeWithChanSize(5, false)
		switch options.ResourceVersion {
		case "1":
			events.Add(volume("2"))
			events.Delete(volume("3"))
		case "3":
			events.Add(volume("4"))
			events.Error(&metav1.Status{Reason: metav1.StatusReasonExpired, Message: "too old"})
		}
		events.Stop()
		return events, nil
	}
	err := Watch(t.Context(), "1", open, func() { opened++ }, func(kind watch.EventType, object any) {
		seen = append(seen, string(kind)+object.(*corev1.PersistentVolume).Name)
	})
	if err == nil || !slices.Equal(from, []string{"1", "3"}) || !slices.Equal(seen, []string{"ADDED2", "DELETED3", "ADDED4"}) || opened != 1 {
		t.Errorf("%v, from %q, seen %q, opened %d times", err, from, seen, opened)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	fails := func(context.Context, metav1.ListOptions) (watch.Interface, error) { return nil, errors.New("no") }
	if err := Watch(ctx, "1", fails, nil, nil); err != nil {
		t.Error(err)
	}
	if err := Watch(t.Context(), "1", fails, nil, nil); err == nil {
		t.Error("no error")
	}
}
