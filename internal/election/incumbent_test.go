package election

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

const oldLock = "cluster.local-nfs-subdir-external-provisioner"

// oldEndpoints is a lock as the controller library's versions before 9 write it.
func oldEndpoints(name, holder string, renewed time.Time) runtime.Object {
	//nolint:staticcheck // old provisioners know nothing newer
	return &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: "nfs", Name: name, Annotations: map[string]string{
		"control-plane.alpha.kubernetes.io/leader": fmt.Sprintf(`{"holderIdentity":%q,"leaseDurationSeconds":1,"acquireTime":"2020-01-01T00:00:00Z","renewTime":%q,"leaderTransitions":3}`, holder, renewed.UTC().Format(time.RFC3339)),
	}}}
}

func oldLease(name, holder string, renewed time.Time) *coordinationv1.Lease {
	seconds, micro := int32(1), metav1.NewMicroTime(renewed)
	return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "nfs", Name: name}, Spec: coordinationv1.LeaseSpec{
		HolderIdentity: &holder, LeaseDurationSeconds: &seconds, RenewTime: &micro,
	}}
}

// A leader that renews its lock is found, whatever its clock says, in any namespace
// and with both kinds of locks; what has been left by one that is gone is no leader.
func TestIncumbents(t *testing.T) {
	now := time.Now()
	cases := map[string]struct {
		object runtime.Object
		renew  func(time.Time) runtime.Object // nil: nobody does
		want   bool
	}{
		"none":                  {object: oldEndpoints("another", "x", now), renew: func(t time.Time) runtime.Object { return oldEndpoints("another", "x", t) }},
		"live":                  {oldEndpoints(oldLock, "pod_1", now), func(t time.Time) runtime.Object { return oldEndpoints(oldLock, "pod_1", t) }, true},
		"live, clock ahead":     {oldEndpoints(oldLock, "pod_1", now.Add(time.Hour)), func(t time.Time) runtime.Object { return oldEndpoints(oldLock, "pod_1", t.Add(time.Hour)) }, true},
		"live, clock behind":    {oldEndpoints(oldLock, "pod_1", now.Add(-30*time.Minute)), func(t time.Time) runtime.Object { return oldEndpoints(oldLock, "pod_1", t.Add(-30*time.Minute)) }, true},
		"another takes over":    {oldEndpoints(oldLock, "pod_1", now), func(t time.Time) runtime.Object { return oldEndpoints(oldLock, "pod_2", t) }, true},
		"live, Lease":           {oldLease(oldLock, "pod_1", now), func(t time.Time) runtime.Object { return oldLease(oldLock, "pod_1", t) }, true},
		"in its namespace":      {oldLease(oldLock, "pod_1", now), func(t time.Time) runtime.Object { return oldLease(oldLock, "pod_1", t) }, true},
		"in another namespace":  {oldLease(oldLock, "pod_1", now), func(t time.Time) runtime.Object { return oldLease(oldLock, "pod_1", t) }, false},
		"gone a moment ago":     {object: oldEndpoints(oldLock, "pod_1", now)},
		"gone long ago":         {object: oldEndpoints(oldLock, "pod_1", now.Add(-24*time.Hour))},
		"released":              {object: oldLease(oldLock, "", now)},
		"of something else":     {object: oldEndpoints(oldLock, "", now)},
		"released while looked": {oldLease(oldLock, "pod_1", now), func(t time.Time) runtime.Object { return oldLease(oldLock, "", t) }, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := fake.NewClientset(c.object)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			renewing := make(chan struct{})
			go func() {
				defer close(renewing)
				for i := 1; c.renew != nil && ctx.Err() == nil; i++ {
					object := c.renew(now.Add(time.Duration(i) * time.Second))
					_ = client.Tracker().Update(resourceOf(object), object, "nfs")
					time.Sleep(20 * time.Millisecond)
				}
			}()
			namespace := ""
			if strings.HasSuffix(name, "in its namespace") {
				namespace = "nfs"
			} else if strings.HasSuffix(name, "in another namespace") {
				namespace = "another"
			}
			err := CheckIncumbents(ctx, client, 50*time.Millisecond, Locks{Namespace: namespace, Names: []string{"one more", oldLock}})
			cancel()
			<-renewing
			if errors.Is(err, ErrIncumbent) != c.want || !c.want && err != nil {
				t.Errorf("got %v", err)
			}
			if c.want && (!strings.Contains(err.Error(), "pod_") || !strings.Contains(err.Error(), "namespace nfs")) {
				t.Errorf("the error does not say who and where: %v", err)
			}
		})
	}
}

func resourceOf(object runtime.Object) schema.GroupVersionResource {
	if _, ok := object.(*coordinationv1.Lease); ok {
		return coordinationv1.SchemeGroupVersion.WithResource("leases")
	}
	return corev1.SchemeGroupVersion.WithResource("endpoints")
}

// What may not be looked at is no reason to begin, and only these names are asked for.
func TestIncumbentsThatCantBeSeen(t *testing.T) {
	client := fake.NewClientset()
	client.PrependReactor("list", "endpoints", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "endpoints"}, oldLock, errors.New("no"))
	})
	err := CheckIncumbents(t.Context(), client, 0, Locks{Names: []string{oldLock}})
	if err == nil || errors.Is(err, ErrIncumbent) || !strings.Contains(err.Error(), "list endpoints with the resourceName "+oldLock) {
		t.Errorf("got %v", err)
	}
	for _, action := range client.Actions() {
		list, ok := action.(clienttesting.ListAction)
		if !ok || list.GetListRestrictions().Fields.String() != "metadata.name="+oldLock {
			t.Errorf("asks for %v", action)
		}
	}
}

// The old Deployment was not scaled down, and its pod is being replaced: the new one waits
// for the lock of the one before, which is silent meanwhile.
func TestIncumbentThatIsBeingReplaced(t *testing.T) {
	t.Parallel()
	client := fake.NewClientset(oldEndpoints(oldLock, "pod_1", time.Now()))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	go func() {
		time.Sleep(1500 * time.Millisecond) // longer than its lease duration
		o := oldEndpoints(oldLock, "pod_2", time.Now())
		_ = client.Tracker().Update(resourceOf(o), o, "nfs")
	}()
	if err := CheckIncumbents(ctx, client, 50*time.Millisecond, Locks{Names: []string{oldLock}}); !errors.Is(err, ErrIncumbent) {
		t.Errorf("got %v", err)
	}
}

// Whoever starts later is found, too, also after the API server could not be asked; a lock
// that is left as it was is no leader, and one that is seen for the first time is none yet.
func TestIncumbentsThatStartLater(t *testing.T) {
	client := fake.NewClientset(oldEndpoints("left", "pod_0", time.Now()))
	asked := make(chan int)
	client.PrependReactor("list", "endpoints", func(clienttesting.Action) (bool, runtime.Object, error) {
		if <-asked == 0 {
			return true, nil, errors.New("the API server does not answer")
		}
		return false, nil, nil
	})
	ended := make(chan error)
	go func() {
		ended <- WatchIncumbents(t.Context(), client, time.Millisecond, Locks{Names: []string{"left", oldLock}})
	}()
	answer := func(answers ...int) {
		for _, a := range answers {
			select {
			case asked <- a:
			case err := <-ended:
				t.Fatalf("ended with %v", err)
			}
		}
	}
	answer(1, 1, 1, 1, 0, 1)
	o := oldEndpoints(oldLock, "pod_2", time.Now())
	if err := client.Tracker().Create(resourceOf(o), o, "nfs"); err != nil {
		t.Fatal(err)
	}
	answer(1, 1, 1, 0)
	o = oldEndpoints(oldLock, "pod_2", time.Now().Add(2*time.Second))
	if err := client.Tracker().Update(resourceOf(o), o, "nfs"); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			select {
			case asked <- 1:
			case <-t.Context().Done():
				return
			}
		}
	}()
	if err := <-ended; !errors.Is(err, ErrIncumbent) || !strings.Contains(err.Error(), "pod_2") {
		t.Errorf("got %v", err)
	}
}
