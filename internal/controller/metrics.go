package controller

import (
	"errors"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v8/controller/metrics"

	"sharevol.dev/sharevol/internal/share"
	"sharevol.dev/sharevol/internal/share/dirs"
	"sharevol.dev/sharevol/internal/volume"
)

// Metrics are the provisioner's figures for Prometheus.
type Metrics struct {
	registry   *prometheus.Registry
	operations *prometheus.HistogramVec
}

// NewMetrics makes the figures of a program of the given version: operations on
// shares, the state of shares as states returns it, the depth of the controller's
// queues, whether this replica leads, the controller library's own figures, and the
// process's. It must be called once, before the controller is made.
func NewMetrics(version string, states func() []share.State, leads func() bool) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		operations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "sharevol_share_operation_duration_seconds",
			Help:    "Operations on a share: how long they took, by what they were and how they ended (ok, refused, unanswered, failed).",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 9), // 1 ms to 65 s
		}, []string{"share", "operation", "result"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "sharevol_build_info",
		Help:        "1, labelled with the version of sharevol-provisioner.",
		ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	queues := newQueueMetrics()
	workqueue.SetProvider(queues)
	m.registry.MustRegister(
		build,
		m.operations,
		shareCollector{states},
		queues.depth,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "sharevol_leader", Help: "1 while this replica is the one that works, 0 while it stands by.",
		}, func() float64 { return boolToFloat(leads()) }),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		metrics.PersistentVolumeClaimProvisionTotal,
		metrics.PersistentVolumeClaimProvisionFailedTotal,
		metrics.PersistentVolumeClaimProvisionDurationSeconds,
		metrics.PersistentVolumeDeleteTotal,
		metrics.PersistentVolumeDeleteFailedTotal,
		metrics.PersistentVolumeDeleteDurationSeconds,
	)
	return m
}

// Handler serves the figures.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// Observe counts one operation on a share. See share.Options.
func (m *Metrics) Observe(s volume.Share, operation string, err error, d time.Duration) {
	result := "failed"
	switch {
	case err == nil:
		result = "ok"
	case errors.Is(err, share.ErrNoAnswer):
		result = "unanswered"
	case errors.Is(err, dirs.ErrConflict), errors.Is(err, dirs.ErrOtherShare):
		result = "refused"
	}
	m.operations.WithLabelValues(s.String(), operation, result).Observe(d.Seconds())
}

var (
	shareUp = prometheus.NewDesc("sharevol_share_up",
		"1 if the share answered last, 0 if it can't be mounted or is unavailable.", []string{"share"}, nil)
	shareSince = prometheus.NewDesc("sharevol_share_state_since_timestamp_seconds",
		"When the share came into this state, in seconds since 1970.", []string{"share"}, nil)
)

// shareCollector reports the state of the shares in use.
type shareCollector struct{ states func() []share.State }

func (c shareCollector) Describe(descriptions chan<- *prometheus.Desc) {
	descriptions <- shareUp
	descriptions <- shareSince
}

func (c shareCollector) Collect(figures chan<- prometheus.Metric) {
	// One share may be mounted in several ways: it is as well as the worst of them.
	worst := map[string]share.State{}
	for _, state := range c.states() {
		name := state.Share.String()
		if seen, known := worst[name]; !known || seen.Up && !state.Up {
			worst[name] = state
		}
	}
	for name, state := range worst {
		figures <- prometheus.MustNewConstMetric(shareUp, prometheus.GaugeValue, boolToFloat(state.Up), name)
		figures <- prometheus.MustNewConstMetric(shareSince, prometheus.GaugeValue, float64(state.Since.Unix()), name)
	}
}

func boolToFloat(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// queueMetrics gives client-go's work queues a gauge of their depth, and nothing else.
type queueMetrics struct{ depth *prometheus.GaugeVec }

func newQueueMetrics() queueMetrics {
	return queueMetrics{prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "sharevol_queue_depth",
		Help: "Items that wait to be worked on: claims, volumes, unsavedpvs.",
	}, []string{"queue"})}
}

type noMetric struct{}

func (noMetric) Inc()            {}
func (noMetric) Dec()            {}
func (noMetric) Set(float64)     {}
func (noMetric) Observe(float64) {}

func (q queueMetrics) NewDepthMetric(name string) workqueue.GaugeMetric {
	return q.depth.WithLabelValues(name)
}
func (queueMetrics) NewAddsMetric(string) workqueue.CounterMetric           { return noMetric{} }
func (queueMetrics) NewLatencyMetric(string) workqueue.HistogramMetric      { return noMetric{} }
func (queueMetrics) NewWorkDurationMetric(string) workqueue.HistogramMetric { return noMetric{} }
func (queueMetrics) NewUnfinishedWorkSecondsMetric(string) workqueue.SettableGaugeMetric {
	return noMetric{}
}
func (queueMetrics) NewLongestRunningProcessorSecondsMetric(string) workqueue.SettableGaugeMetric {
	return noMetric{}
}
func (queueMetrics) NewRetriesMetric(string) workqueue.CounterMetric { return noMetric{} }
