package e2e

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sharevol.dev/sharevol/internal/testbed/guest"
)

// The provisioner's role holds exactly the verbs that it used in all the tests
// before, by the API server's own audit log; the node plugin called nothing.
func (w world) testPermissions(t *testing.T) {
	log, err := os.ReadFile(w.Cluster.AuditLog())
	check(t, err)
	log = log[:bytes.LastIndexByte(log, '\n')+1] // the last line may still be being written
	used := map[string]bool{}
	for line := range bytes.Lines(log) {
		var event struct {
			Verb           string
			User           struct{ Username string }
			ObjectRef      struct{ Resource, Subresource, APIGroup string }
			ResponseStatus struct{ Code int }
		}
		check(t, json.Unmarshal(line, &event))
		if event.User.Username != "system:serviceaccount:"+guest.SystemNamespace+":sharevol-provisioner" {
			t.Errorf("a call by %s: %s", event.User.Username, line)
			continue
		}
		if event.ResponseStatus.Code == 403 {
			t.Errorf("forbidden: %s", line)
		}
		used[event.ObjectRef.APIGroup+"/"+event.ObjectRef.Resource+event.ObjectRef.Subresource+" "+event.Verb] = true
	}
	role, err := w.client.RbacV1().ClusterRoles().Get(t.Context(), "sharevol-provisioner", metav1.GetOptions{})
	check(t, err)
	rules := role.Rules
	// The second is the user's own, for the secret that a class names.
	for _, name := range []string{"sharevol-provisioner", "sharevol-provisioner-secret"} {
		role, err := w.client.RbacV1().Roles(guest.SystemNamespace).Get(t.Context(), name, metav1.GetOptions{})
		check(t, err)
		rules = append(rules, role.Rules...)
	}
	granted := map[string]bool{}
	for _, rule := range rules {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					granted[group+"/"+resource+" "+verb] = true
				}
			}
		}
	}
	if !maps.Equal(used, granted) {
		t.Errorf("used:    %q\ngranted: %q", slices.Sorted(maps.Keys(used)), slices.Sorted(maps.Keys(granted)))
	}
}
