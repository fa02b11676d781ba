// Package follow watches without an end: the API server ends watches as it likes, those of a client that was
// slow for a moment, too.
package follow

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// Open begins a watch; it is the method Watch of a typed client.
type Open func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error)

// Watch calls see for all that happens after a version, in order, until ctx ends, which is no error. A watch
// that ends is at once followed by another. (client-go's RetryWatcher waits a second, which would be measured.)
// opened, if not nil, is called when the first is open.
func Watch(ctx context.Context, version string, open Open, opened func(), see func(watch.EventType, any)) error {
	for ctx.Err() == nil {
		events, err := open(ctx, metav1.ListOptions{ResourceVersion: version})
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("watch: %w", err)
		}
		if opened != nil {
			opened()
			opened = nil
		}
		version, err = follow(events, version, see)
		events.Stop()
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("watch: %w", err)
		}
	}
	return nil
}

// follow returns the version after which nothing was seen when the watch ends.
func follow(events watch.Interface, version string, see func(watch.EventType, any)) (string, error) {
	for event := range events.ResultChan() {
		if event.Type == watch.Error {
			return version, apierrors.FromObject(event.Object)
		}
		object, err := apimeta.Accessor(event.Object)
		if err != nil {
			return version, err
		}
		version = object.GetResourceVersion()
		see(event.Type, event.Object)
	}
	return version, nil
}
