package provision

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v8/controller/metrics"
)

// MetricsHandler serves the controller library's counts and durations of
// provisioning and deleting by class, the process's own figures, and the version.
func MetricsHandler(version string) http.Handler {
	registry := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "sharevol_build_info",
		Help:        "1, labelled with the version of sharevol-provisioner.",
		ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	registry.MustRegister(
		build,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		metrics.PersistentVolumeClaimProvisionTotal,
		metrics.PersistentVolumeClaimProvisionFailedTotal,
		metrics.PersistentVolumeClaimProvisionDurationSeconds,
		metrics.PersistentVolumeDeleteTotal,
		metrics.PersistentVolumeDeleteFailedTotal,
		metrics.PersistentVolumeDeleteDurationSeconds,
	)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
}
