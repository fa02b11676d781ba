package replicas

import (
	"context"
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sharevol.dev/sharevol/internal/testbed/guest"
)

// takeoverPromise is how soon another replica leads when the one that did is dead.
const takeoverPromise = 20 * time.Second

// lease is what the API server has of the Lease of a place's provisioners.
type lease struct {
	holder      string
	transitions int32
}

func (p *place) lease(ctx context.Context) (lease, error) {
	object, err := p.client.CoordinationV1().Leases(guest.SystemNamespace).Get(ctx, p.driver(), metav1.GetOptions{})
	if err != nil {
		return lease{}, err
	}
	return lease{holder: deref(object.Spec.HolderIdentity), transitions: deref(object.Spec.LeaseTransitions)}, nil
}

func deref[T any](value *T) T {
	if value == nil {
		return *new(T)
	}
	return *value
}

// takenOver waits until the Lease has another holder than before, and returns how long that took since the
// old one was hurt. It is one transition, by the API server's count.
func (p *place) takenOver(ctx context.Context, t *testing.T, before lease, hurt time.Time) time.Duration {
	t.Helper()
	var now lease
	check(t, waitFor(ctx, "another leader", 3*takeoverPromise, func(ctx context.Context) (bool, string, error) {
		var err error
		now, err = p.lease(ctx)
		return err == nil && now.holder != "" && now.holder != before.holder, fmt.Sprintf("%+v, %v", now, err), nil
	}))
	took := time.Since(hurt)
	if took > takeoverPromise {
		t.Errorf("the takeover took %s, not %s at most", took, takeoverPromise)
	}
	if now.transitions != before.transitions+1 {
		t.Errorf("the Lease was %+v and is %+v: not one transition", before, now)
	}
	return took
}
