package e2e

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"sharevol.dev/sharevol/internal/testbed/guest"
)

// What both programs serve for probes and Prometheus, on the node's loopback only.
func (w world) testHealth(t *testing.T) {
	for url, want := range map[string]string{
		"29801/healthz": "ok",
		"29801/readyz":  "ok",
		"29801/metrics": `controller_persistentvolumeclaim_provision_failed_total{class="bad"}`,
		"29802/healthz": "ok",
		"29802/readyz":  "ok",
		"29803/healthz": "ok",
	} {
		response, err := http.Get("http://127.0.0.1:" + url)
		check(t, err)
		body, err := io.ReadAll(response.Body)
		check(t, err)
		check(t, response.Body.Close())
		if response.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
			t.Errorf("%s: %s: %s", url, response.Status, body)
		}
		if response, err := http.Get("http://" + guest.NodeAddress + ":" + url); err == nil {
			t.Errorf("%s answers outside the loopback: %s", url, response.Status)
			check(t, response.Body.Close())
		}
	}
}
