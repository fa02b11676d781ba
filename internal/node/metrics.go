package node

import (
	"net/http"
	"path"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc/codes"

	"sharevol.dev/sharevol/internal/nfsmount"
)

// Metrics are the node plugin's figures for Prometheus.
type Metrics struct {
	registry *prometheus.Registry
	calls    *prometheus.HistogramVec
	unmounts *prometheus.CounterVec
}

// NewMetrics makes the figures of a program of the given version.
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
	for _, kind := range []nfsmount.Unmounted{nfsmount.Plain, nfsmount.Detached, nfsmount.Failed} {
		m.unmounts.WithLabelValues(string(kind)) // so that it is there from the start
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

// Watch adds the volumes that are mounted for pods, as mountinfo has them at the
// moment. It must be called once, at most.
func (m *Metrics) Watch(s *Server) { m.registry.MustRegister(volumeCollector{s.folder}) }

// Handler serves the figures.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

// Call counts a CSI call. See csiserver.Services.
func (m *Metrics) Call(method string, code codes.Code, d time.Duration) {
	m.calls.WithLabelValues(path.Base(method), code.String()).Observe(d.Seconds())
}

// Unmounted counts an unmount. See nfsmount.Options.
func (m *Metrics) Unmounted(kind nfsmount.Unmounted) { m.unmounts.WithLabelValues(string(kind)).Inc() }

var volumesMounted = prometheus.NewDesc("sharevol_node_mounts",
	"NFS mounts on target paths of CSI volumes, those of other drivers included.", nil, nil)

// volumeCollector counts the volumes that are mounted.
type volumeCollector struct{ folder folder }

func (c volumeCollector) Describe(descriptions chan<- *prometheus.Desc) {
	descriptions <- volumesMounted
}

func (c volumeCollector) Collect(figures chan<- prometheus.Metric) {
	volumes, err := c.folder.volumes()
	if err != nil {
		figures <- prometheus.NewInvalidMetric(volumesMounted, err)
		return
	}
	figures <- prometheus.MustNewConstMetric(volumesMounted, prometheus.GaugeValue, float64(len(volumes)))
}
