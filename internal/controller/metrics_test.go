package controller

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v8/controller/metrics"

	"sharevol.dev/sharevol/internal/share"
	"sharevol.dev/sharevol/internal/share/dirs"
	"sharevol.dev/sharevol/internal/volume"
)

func TestMetrics(t *testing.T) {
	up, down := volume.Share{Server: "up", Path: "/"}, volume.Share{Server: "down", Path: "/srv"}
	since := time.Unix(1000, 0)
	m := NewMetrics("v1", func() []share.State {
		return []share.State{
			{Share: up, Up: true, Since: since},
			{Share: down, Up: true, MountOptions: []string{"nfsvers=4.1"}, Since: since.Add(time.Hour)}, {Share: down, Since: since},
		}
	}, func() bool { return true })
	metrics.PersistentVolumeClaimProvisionTotal.WithLabelValues("sharevol").Inc()
	m.Observe(up, "create", nil, 2*time.Millisecond)
	m.Observe(up, "delete", fmt.Errorf("%w: x", dirs.ErrConflict), time.Millisecond)
	m.Observe(down, "create", fmt.Errorf("%w: x", share.ErrNoAnswer), time.Millisecond)
	m.Observe(down, "create", dirs.ErrUntouched, time.Millisecond)
	workqueue.NewNamedRateLimitingQueue(newRetryPolicy(newLimits().retries), "claims").Add("x")
	recorder := httptest.NewRecorder()
	m.Handler().ServeHTTP(recorder, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		`sharevol_build_info{version="v1"} 1`, `sharevol_leader 1`, `sharevol_queue_depth{queue="claims"} 1`,
		`sharevol_share_up{share="up:/"} 1`, `sharevol_share_up{share="down:/srv"} 0`, `sharevol_share_state_since_timestamp_seconds{share="down:/srv"} 1000`,
		`sharevol_share_operation_duration_seconds_count{operation="create",result="ok",share="up:/"} 1`,
		`{operation="delete",result="refused",share="up:/"} 1`, `{operation="create",result="unanswered",share="down:/srv"} 1`, `{operation="create",result="failed",share="down:/srv"} 1`,
		`controller_persistentvolumeclaim_provision_total{class="sharevol"} 1`, "process_resident_memory_bytes",
	} {
		if !strings.Contains(recorder.Body.String(), want) {
			t.Errorf("no %s in\n%s", want, recorder.Body)
		}
	}
}
