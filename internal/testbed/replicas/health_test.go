package replicas

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"testing"
	"time"

	"sharevol.dev/sharevol/internal/testbed/controlplane"
)

var leads = regexp.MustCompile(`(?m)^sharevol_leader 1$`)

// A standby is as healthy and as ready as the leader: a rollout waits for both. One of them leads. When it is
// stopped in an orderly way, the other need not wait until the Lease runs out.
func TestHealthOfReplicas(t *testing.T) {
	ctx, lab := theLab(t, 3*time.Minute)
	p := newPlace(ctx, t, lab, lab.cluster, "health", "health", plain)
	two := []*controlplane.Provisioner{p.provisioner(t, "a", lab.program), p.provisioner(t, "b", lab.program)}
	start(ctx, t, two...)
	leader := oneLeads(ctx, t, two...)
	for _, one := range two {
		healthy(ctx, t, one)
	}
	time.Sleep(time.Second) // a standby stays as it is
	for _, one := range two {
		healthy(ctx, t, one)
	}
	before, err := p.lease(ctx)
	check(t, err)
	stopped := time.Now()
	stop(ctx, t, two[leader])
	oneLeads(ctx, t, two[1-leader])
	took := time.Since(stopped)
	if took > takeoverPromise/2 {
		t.Errorf("after an orderly stop the other leads after %s", took)
	}
	if now, err := p.lease(ctx); err != nil || now.transitions <= before.transitions {
		t.Errorf("the Lease was %+v and is %+v: %v", before, now, err)
	}
	healthy(ctx, t, two[1-leader])
	t.Logf("both replicas healthy and ready; after an orderly stop the other led after %s", took.Round(time.Millisecond))
}

func healthy(ctx context.Context, t *testing.T, p *controlplane.Provisioner) {
	t.Helper()
	for _, path := range []string{"/healthz", "/readyz"} {
		if status, body, err := p.Get(ctx, path); err != nil || status != http.StatusOK {
			t.Errorf("%s%s: %d %s %v", p.Name(), path, status, body, err)
		}
	}
}

// oneLeads waits until exactly one of some provisioners says that it leads, and returns which.
func oneLeads(ctx context.Context, t *testing.T, all ...*controlplane.Provisioner) int {
	t.Helper()
	leader := -1
	check(t, waitFor(ctx, "one leader", takeoverPromise, func(ctx context.Context) (bool, string, error) {
		count := 0
		for i, one := range all {
			_, body, err := one.Get(ctx, "/metrics")
			if err != nil {
				return false, err.Error(), nil
			}
			if leads.MatchString(body) {
				count, leader = count+1, i
			}
		}
		if count > 1 {
			return false, "", fmt.Errorf("%d replicas lead at once", count)
		}
		return count == 1, fmt.Sprintf("%d lead", count), nil
	}))
	return leader
}
