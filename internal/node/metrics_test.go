package node_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"sharevol.dev/sharevol/internal/mount"
	"sharevol.dev/sharevol/internal/node"
)

func TestMetrics(t *testing.T) {
	f := newFixture(t)
	m := node.NewMetrics("v1")
	m.Watch(f.server)
	m.ObserveCall("/csi.v1.Node/NodePublishVolume", codes.OK, 30*time.Millisecond)
	m.ObserveCall("/csi.v1.Node/NodePublishVolume", codes.DeadlineExceeded, 70*time.Second)
	m.Unmounted(mount.Detached)
	f.publish(t)
	f.mounter.Put(f.kubelet+"/pods/x/volumes/kubernetes.io~csi/y/mount", mount.Layer{Source: "tmpfs", FSType: "tmpfs"})
	f.mounter.Put("/elsewhere", mount.Layer{Source: source, FSType: "nfs4"})
	scrape := func() string {
		answer := httptest.NewRecorder()
		m.Handler().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		return answer.Body.String()
	}
	figures := scrape()
	for _, want := range []string{
		`sharevol_node_call_duration_seconds_count{code="OK",method="NodePublishVolume"} 1`,
		`sharevol_node_call_duration_seconds_bucket{code="OK",method="NodePublishVolume",le="0.064"} 1`,
		`sharevol_node_call_duration_seconds_count{code="DeadlineExceeded",method="NodePublishVolume"} 1`,
		`sharevol_node_mounts 1`,
		`sharevol_node_unmounts_total{kind="plain"} 0`,
		`sharevol_node_unmounts_total{kind="detached"} 1`,
		`sharevol_node_unmounts_total{kind="failed"} 0`,
		`sharevol_build_info{version="v1"} 1`,
		`go_goroutines`, `process_resident_memory_bytes`,
	} {
		if !strings.Contains(figures, want) {
			t.Errorf("lacks %s", want)
		}
	}
	if t.Failed() {
		t.Log(figures)
	}
	if err := f.unpublish(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(scrape(), "sharevol_node_mounts 0") {
		t.Error("the mount still counts")
	}
}
