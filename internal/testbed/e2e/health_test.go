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
		"29801/metrics": `sharevol_share_up{share="nfs.example.com:/srv/volumes"} 1`,
		"29802/healthz": "ok",
		"29802/readyz":  "ok",
		"29803/healthz": "ok",
	} {
		if body := get(t, "http://127.0.0.1:"+url); !strings.Contains(body, want) {
			t.Errorf("%s: %s", url, body)
		}
		if response, err := http.Get("http://" + guest.NodeAddress + ":" + url); err == nil {
			t.Errorf("%s answers outside the loopback: %s", url, response.Status)
			check(t, response.Body.Close())
		}
	}
}

// get returns what an address answers, which must be 200.
func get(t *testing.T, url string) string {
	t.Helper()
	response, err := http.Get(url)
	check(t, err)
	body, err := io.ReadAll(response.Body)
	check(t, err)
	check(t, response.Body.Close())
	if response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %s", url, response.Status, body)
	}
	return string(body)
}
