package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/flowcontrol"

	"sharevol.dev/sharevol/internal/election"
	"sharevol.dev/sharevol/internal/fence"
)

// What any of the clients sends is given up when nobody acknowledges it: a renewal, so that
// the next is tried, and a write, so that it does not arrive long after the lease.
func TestClientsGiveUpWhatIsNotAcknowledged(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"a"}}`))
	}))
	defer server.Close()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	content := `{apiVersion: v1, kind: Config, current-context: c,
clusters: [{name: c, cluster: {server: "` + server.URL + `"}}], contexts: [{name: c, context: {cluster: c, user: u}}], users: [{name: u, user: {}}]}`
	if err := os.WriteFile(kubeconfig, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := newClients(Config{Kubeconfig: kubeconfig, KubeAPIQPS: 10, KubeAPIBurst: 10}, fence.Unfenced())
	if err != nil {
		t.Fatal(err)
	}
	for _, client := range []kubernetes.Interface{all.work, all.events, all.lease} {
		if _, err := client.CoreV1().Namespaces().Get(t.Context(), "a", metav1.GetOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	timeouts := ackTimeouts(t, server.Listener.Addr().(*net.TCPAddr).Port)
	if want := int(election.AckTimeout.Milliseconds()); !slices.Equal(timeouts, []int{want, want, want}) {
		t.Errorf("connections with timeouts of %v ms", timeouts)
	}
}

// ackTimeouts returns the TCP_USER_TIMEOUT of each of our connections to a local port.
func ackTimeouts(t *testing.T, port int) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var timeouts []int
	for _, entry := range entries {
		fd, err := strconv.Atoi(entry.Name())
		if err != nil {
			t.Fatal(err)
		}
		peer, err := unix.Getpeername(fd)
		if address, ip := peer.(*unix.SockaddrInet4); err != nil || !ip || address.Port != port {
			continue // no connection, or not to there
		}
		timeout, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
		if err != nil {
			t.Fatal(err)
		}
		timeouts = append(timeouts, timeout)
	}
	return timeouts
}

func TestEventBudget(t *testing.T) {
	for name, test := range map[string]struct {
		config           Config
		warnings, normal float32 // a second
		atOnce           [2]int
	}{
		"as told by default": {Config{KubeAPIQPS: 500, KubeAPIBurst: 1000}, 25, 5, [2]int{10, 25}},
		"little":             {Config{KubeAPIQPS: 100, KubeAPIBurst: 100}, 5, 1, [2]int{5, 5}},
		"the least":          {Config{KubeAPIQPS: 1, KubeAPIBurst: 1}, 0.05, 0.01, [2]int{1, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			budget := test.config.eventBudget()
			if got := budget.Warnings.QPS(); got != test.warnings {
				t.Errorf("%v warnings a second, want %v", got, test.warnings)
			}
			if got := budget.Normal.QPS(); got != test.normal {
				t.Errorf("%v Normal events a second, want %v", got, test.normal)
			}
			synctest.Test(t, func(t *testing.T) { // where no time passes
				budget := test.config.eventBudget()
				for i, limit := range []flowcontrol.RateLimiter{budget.Warnings, budget.Normal} {
					got := 0
					for limit.TryAccept() {
						got++
					}
					if got != test.atOnce[i] {
						t.Errorf("%d at once, want %d", got, test.atOnce[i])
					}
				}
			})
		})
	}
}
