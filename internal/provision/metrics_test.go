package provision

import (
	"net/http/httptest"
	"strings"
	"testing"

	"sigs.k8s.io/sig-storage-lib-external-provisioner/v8/controller/metrics"
)

func TestMetrics(t *testing.T) {
	metrics.PersistentVolumeClaimProvisionTotal.WithLabelValues("sharevol").Inc()
	recorder := httptest.NewRecorder()
	MetricsHandler("v1").ServeHTTP(recorder, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{`sharevol_build_info{version="v1"} 1`, `controller_persistentvolumeclaim_provision_total{class="sharevol"} 1`, "process_resident_memory_bytes"} {
		if !strings.Contains(recorder.Body.String(), want) {
			t.Errorf("no %s in\n%s", want, recorder.Body)
		}
	}
}
