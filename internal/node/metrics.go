package node

import (
	"net/http"
	"path"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc/codes"

	"sharevol.dev/sharevol/internal/mount"
)

// Metrics are the node plugin's metrics for Prometheus.
type Metrics struct {
	registry *prometheus.Registry
	calls    *prometheus.HistogramVec
	unmounts *prometheus.CounterVec
}

// NewMetrics makes the metrics of a program of the given version.
func NewMetrics(version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		calls: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "sharevol_node_call_duration_seconds",
			Help:    "CSI calls: how long they took, by method and gRPC code.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 9), // 1 ms to 65 s
		}, []string{"method", "code"}),
		unmounts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sharevol_node_unmounts_total",
			Help: "Unmounts: plain, detached (busy, or the server did not answer) or failed.",
		}, []string{"kind"}),
	}
	for _, kind := range []mount.Unmounted{mount.Plain, mount.Detached, mount.Failed} {
		m.unmounts.WithLabelValues(string(kind)) // so that it is exported from the start
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "sharevol_build_info",
		Help:        "1, labelled with the version of sharevol-node.",
		ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	m.registry.MustRegister(build, m.calls, m.unmounts,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Watch adds the number of volumes that are mounted for pods, which is read from mountinfo
// at each scrape. It must be called once, at most.
func (m *Metrics) Watch(s *Server) { m.registry.MustRegister(volumeCollector{s.kubelet}) }

// Handler serves the metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

// ObserveCall counts a CSI call. See csiserver.Services.
func (m *Metrics) ObserveCall(method string, code codes.Code, d time.Duration) {
	m.calls.WithLabelValues(path.Base(method), code.String()).Observe(d.Seconds())
}

// Unmounted counts an unmount. See mount.Options.
func (m *Metrics) Unmounted(kind mount.Unmounted) { m.unmounts.WithLabelValues(string(kind)).Inc() }

var volumesMounted = prometheus.NewDesc("sharevol_node_mounts",
	"Mounts of the types that sharevol serves (NFS) on target paths of CSI volumes, those of other drivers included.", nil, nil)

// volumeCollector counts the volumes that are mounted.
type volumeCollector struct{ kubelet kubeletDir }

func (c volumeCollector) Describe(descriptions chan<- *prometheus.Desc) {
	descriptions <- volumesMounted
}

func (c volumeCollector) Collect(metrics chan<- prometheus.Metric) {
	volumes, err := c.kubelet.volumes()
	if err != nil {
		metrics <- prometheus.NewInvalidMetric(volumesMounted, err)
		return
	}
	metrics <- prometheus.MustNewConstMetric(volumesMounted, prometheus.GaugeValue, float64(len(volumes)))
}
