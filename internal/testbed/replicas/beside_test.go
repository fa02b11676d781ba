package replicas

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sharevol.dev/sharevol/internal/testbed/controlplane"
)

// lead renews the old provisioner's lock, as it does itself, until end is called.
func (p *peers) lead(ctx context.Context, t *testing.T) (end func()) {
	t.Helper()
	record := func() map[string]string {
		return map[string]string{"control-plane.alpha.kubernetes.io/leader": fmt.Sprintf(
			`{"holderIdentity":"old-pod_1","leaseDurationSeconds":15,"acquireTime":"2026-01-01T00:00:00Z","renewTime":%q,"leaderTransitions":0}`, time.Now().UTC().Format(time.RFC3339))}
	}
	endpoints := p.client.CoreV1().Endpoints(p.name)
	//nolint:staticcheck // old provisioners know nothing newer
	_, err := endpoints.Create(ctx, &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: nfsSubdirLock, Annotations: record()}}, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		check(t, err)
	}
	renewing, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		for renewing.Err() == nil {
			lock, err := endpoints.Get(renewing, nfsSubdirLock, metav1.GetOptions{})
			if err == nil {
				lock.Annotations = record()
				_, err = endpoints.Update(renewing, lock, metav1.UpdateOptions{})
			}
			if err != nil && renewing.Err() == nil {
				done <- err
				return
			}
			select {
			case <-time.After(2 * time.Second):
			case <-renewing.Done():
			}
		}
		done <- nil
	}()
	return func() {
		t.Helper()
		cancel()
		check(t, <-done)
	}
}

// endsBeside waits until a provisioner ends by itself, and says who is at work.
func endsBeside(t *testing.T, p *peers, provisioner *controlplane.Provisioner) {
	t.Helper()
	select {
	case <-provisioner.Exited():
	case <-time.After(time.Minute):
		t.Fatal("it goes on beside a live leader")
	}
	if state := provisioner.State(); state == nil || state.Success() {
		t.Errorf("it ended with %v", state)
	}
	if log := tail(provisioner.Log(), 3); !strings.Contains(log, "old-pod_1") || !strings.Contains(log, nfsSubdirLock) || !strings.Contains(log, p.name) {
		t.Errorf("it does not say who is at work:\n%s", log)
	}
}

// refusesBesideALiveLeader starts the provisioner while somebody renews the old one's lock: it must end, say
// who that is, and touch nothing. When nobody renews the lock any more, it may start.
func refusesBesideALiveLeader(ctx context.Context, t *testing.T, p *peers, provisioner *controlplane.Provisioner) {
	t.Helper()
	end := p.lead(ctx, t)
	check(t, provisioner.Start(ctx))
	endsBeside(t, p, provisioner)
	end()
	for _, root := range []string{p.share, p.old} {
		if _, err := os.Lstat(filepath.Join(root, keptBySharevol)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("it has touched %s: %v", root, err)
		}
	}
}

// endsWhenTheOldOneStarts has the old one lead again while the provisioner works: that ends.
func endsWhenTheOldOneStarts(ctx context.Context, t *testing.T, p *peers, provisioner *controlplane.Provisioner) {
	t.Helper()
	end := p.lead(ctx, t)
	endsBeside(t, p, provisioner)
	end()
}
