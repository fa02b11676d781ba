package replicas

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sharevol.dev/sharevol/internal/testbed/guest"
)

// A thousand claims at once, and all of them deleted at once, with the default flags: each is served and goes,
// without one warning, one call that RBAC does not allow, or anything left on the share.
func TestThousandClaims(t *testing.T) {
	const count = 1000
	ctx, lab := theLab(t, 5*time.Minute)
	p := newPlace(ctx, t, lab, lab.cluster, "thousand", "thousand", plain)
	ledger, provisioner := newLedger(p), p.provisioner(t, "a", lab.program)
	start(ctx, t, provisioner)
	alive := pair{provisioner, provisioner}.alive

	began := time.Now()
	check(t, atOnce(ctx, numbered("claim", count), func(ctx context.Context, name string) error { return ledger.create(ctx, name, plain) }))
	made := time.Since(began)
	check(t, ledger.settle(ctx, alive))
	bound := time.Since(began)
	ledger.endState(ctx, t)
	t.Logf("%d claims, made within %s: all bound after %s, %.0f a second", count,
		made.Round(100*time.Millisecond), bound.Round(100*time.Millisecond), count/bound.Seconds())

	began = time.Now()
	check(t, ledger.removeAll(ctx))
	asked := time.Since(began)
	check(t, ledger.settle(ctx, alive))
	gone := time.Since(began)
	t.Logf("deleted within %s: all volumes gone after %s, %.0f a second",
		asked.Round(100*time.Millisecond), gone.Round(100*time.Millisecond), count/gone.Seconds())
	ledger.endState(ctx, t)
	empty(t, p.share)
	stop(ctx, t, provisioner)

	noWarning(ctx, t, ledger)
	nothingForbidden(t, p, provisioner.Log())
}

// noWarning checks that no event about a ledger's claims and volumes is a warning.
func noWarning(ctx context.Context, t *testing.T, l *ledger) {
	t.Helper()
	ours := map[string]bool{}
	for _, e := range l.claims {
		ours[e.volume()] = true
	}
	for _, namespace := range []string{l.name, metav1.NamespaceDefault} { // events on volumes are in the latter
		events, err := l.client.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{FieldSelector: "type=Warning"})
		check(t, err)
		for _, event := range events.Items {
			if namespace == l.name || ours[event.InvolvedObject.Name] {
				t.Errorf("a warning on %s: %s: %s", event.InvolvedObject.Name, event.Reason, event.Message)
			}
		}
	}
}

// nothingForbidden checks that a provisioner was allowed all that it asked for, as it says and as the API
// server does, which also shows that its calls were those of the manifests' service account.
func nothingForbidden(t *testing.T, p *place, log string) {
	t.Helper()
	data, err := os.ReadFile(log)
	check(t, err)
	for line := range strings.Lines(string(data)) {
		if strings.Contains(strings.ToLower(line), "forbidden") {
			t.Errorf("logged: %s", line)
		}
	}
	users, err := p.cluster.Audit()
	check(t, err)
	calls := users["system:serviceaccount:"+guest.SystemNamespace+":sharevol-provisioner"]
	if calls == nil || calls.Used["/persistentvolumes create"] == 0 {
		t.Fatalf("the audit log has no call of the service account: %v", users)
	}
	for _, line := range calls.Forbidden {
		t.Errorf("forbidden: %s", line)
	}
}
