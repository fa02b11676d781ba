package manifests

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"k8s.io/client-go/kubernetes/fake"
	libmetrics "sigs.k8s.io/sig-storage-lib-external-provisioner/v8/controller/metrics"

	"sharevol.dev/sharevol/internal/cluster"
	"sharevol.dev/sharevol/internal/controller"
	"sharevol.dev/sharevol/internal/share"
	"sharevol.dev/sharevol/internal/share/dirs"
	"sharevol.dev/sharevol/internal/volume"
)

// targetLabels are those that Prometheus gives every series of a target.
var targetLabels = []string{"job", "instance"}

// exported are the labels of each metric, and of each label the values seen.
type exported map[string]map[string][]string

// add reads metrics as a program serves them.
func (e exported) add(t *testing.T, text io.Reader) {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(text)
	if err != nil {
		t.Fatal(err)
	}
	for name, family := range families {
		names := []string{name}
		if family.GetMetric()[0].GetHistogram() != nil {
			names = []string{name + "_bucket", name + "_count", name + "_sum"}
		}
		for _, name := range names {
			if e[name] == nil {
				e[name] = map[string][]string{}
			}
			if strings.HasSuffix(name, "_bucket") {
				e[name]["le"] = nil
			}
			for _, metric := range family.GetMetric() {
				for _, label := range metric.GetLabel() {
					e[name][label.GetName()] = append(e[name][label.GetName()], label.GetValue())
				}
			}
		}
	}
}

// ofProvisioner are the figures of sharevol-provisioner, after everything has happened once.
func (e exported) ofProvisioner(t *testing.T) {
	t.Helper()
	nfs := volume.Share{Server: "nfs", Path: "/"}
	m := controller.NewMetrics("v1", func() []share.State { return []share.State{{Share: nfs, Up: true, Since: time.Now()}} }, func() bool { return true })
	known, err := cluster.New(fake.NewClientset(), cluster.Names{Driver: volume.DefaultDriverName})
	if err != nil {
		t.Fatal(err)
	}
	controller.New(controller.Options{Client: fake.NewClientset(), Cluster: known, Workers: 1}) // for its queues
	for _, operation := range []string{"mount", "create", "delete", "archive", "release", "records", "drop", "probe"} {
		for _, err := range []error{nil, dirs.ErrConflict, share.ErrNoAnswer, errors.New("another")} {
			m.Observe(nfs, operation, err, time.Second)
		}
	}
	for _, v := range []interface{ Inc() }{
		libmetrics.PersistentVolumeClaimProvisionTotal.WithLabelValues("c"), libmetrics.PersistentVolumeClaimProvisionFailedTotal.WithLabelValues("c"),
		libmetrics.PersistentVolumeDeleteTotal.WithLabelValues("c"), libmetrics.PersistentVolumeDeleteFailedTotal.WithLabelValues("c"),
	} {
		v.Inc()
	}
	libmetrics.PersistentVolumeClaimProvisionDurationSeconds.WithLabelValues("c").Observe(1)
	libmetrics.PersistentVolumeDeleteDurationSeconds.WithLabelValues("c").Observe(1)
	recorder := httptest.NewRecorder()
	m.Handler().ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	e.add(t, recorder.Body)
}

// ofNode are the figures of sharevol-node, as it serves them when it was called once.
func (e exported) ofNode(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_ = listener.Close()
	program := filepath.Join(dir, "sharevol-node")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", program, "./nodeplugin")
	build.Dir, build.Env = root(t), append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	node := exec.CommandContext(ctx, program, "--node-id=n",
		"--endpoint=unix://"+filepath.Join(dir, "s"), "--kubelet-dir="+dir, "--http-address="+address)
	var log strings.Builder
	node.Stdout, node.Stderr = &log, &log
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = node.Wait() // killed
	}()
	for _, path := range []string{"/healthz", "/metrics"} { // the first has it called, by itself
		answer := get(ctx, "http://"+address+path)
		if answer == nil || answer.StatusCode != http.StatusOK {
			t.Fatalf("%s: %+v\n%s", path, answer, &log)
		}
		defer answer.Body.Close()
		if path == "/metrics" {
			e.add(t, answer.Body)
		}
	}
}

// get asks until there is an answer, nil if ctx ends before.
func get(ctx context.Context, url string) *http.Response {
	for ctx.Err() == nil {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return nil
		}
		if answer, err := http.DefaultClient.Do(request); err == nil {
			return answer
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil
}

// use is one place where a metric is used.
type use struct{ where, expr string }

func (e exported) check(t *testing.T, u use) {
	t.Helper()
	// What Grafana fills in.
	expr := strings.ReplaceAll(u.expr, "$__rate_interval", "5m")
	expr = regexp.MustCompile(`\$(job|share)\b`).ReplaceAllString(expr, ".*")
	parsed, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		t.Errorf("%s: %v in %s", u.where, err, u.expr)
		return
	}
	known := maps.Clone(e.labelsOf(t, u, parsed))
	for _, label := range targetLabels {
		known[label] = nil
	}
	parser.Inspect(parsed, func(n parser.Node, _ []parser.Node) error {
		var names []string
		switch n := n.(type) {
		case *parser.AggregateExpr:
			names = n.Grouping
		case *parser.BinaryExpr:
			if n.VectorMatching != nil {
				names = n.VectorMatching.MatchingLabels
			}
		}
		for _, name := range names {
			if _, ok := known[name]; !ok {
				t.Errorf("%s: nothing has the label %s in %s", u.where, name, u.expr)
			}
		}
		return nil
	})
}

// labelsOf returns the labels of all metrics in an expression, which must be exported,
// with what is selected of them.
func (e exported) labelsOf(t *testing.T, u use, parsed parser.Expr) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	parser.Inspect(parsed, func(n parser.Node, _ []parser.Node) error {
		selector, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		has, known := e[selector.Name]
		if !known {
			t.Errorf("%s: nothing exports %s", u.where, selector.Name)
		}
		maps.Copy(all, has)
		for _, m := range selector.LabelMatchers {
			if m.Name == model.MetricNameLabel || slices.Contains(targetLabels, m.Name) {
				continue
			}
			values, labelled := has[m.Name]
			if known && !labelled {
				t.Errorf("%s: %s has no label %s", u.where, selector.Name, m.Name)
			}
			selects := func(value string) bool {
				return m.Matches(value) == (m.Type == labels.MatchEqual || m.Type == labels.MatchRegexp)
			}
			if labelled && len(values) > 0 && m.Name != "method" && m.Name != "code" && m.Name != "share" && !slices.ContainsFunc(values, selects) {
				t.Errorf("%s: no %s has %s (there are %q)", u.where, selector.Name, m, values)
			}
		}
		return nil
	})
	return all
}
