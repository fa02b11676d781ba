package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// profileTime is how long a processor profile of a burst is; shorter bursts end before it does.
const profileTime = 6 * time.Second

// meter sees what one measurement costs: processor time by program, and requests to the API server.
type meter struct {
	lab       *lab
	v         *variant // nil if no program of ours runs
	run       int
	benchmark string
	used      map[string]time.Duration
	requests  map[string]float64
	profiled  chan error // nil if nothing is profiled
}

func (l *lab) meter(ctx context.Context, v *variant, run int, benchmark string) (*meter, error) {
	m := &meter{lab: l, v: v, run: run, benchmark: benchmark}
	var err error
	if m.requests, err = l.requests(ctx); err != nil {
		return nil, err
	}
	if m.used, err = m.time(); err != nil {
		return nil, err
	}
	if l.options.Profile && run == 0 {
		m.profiled = make(chan error, 1)
		go func() { m.profiled <- m.profile(ctx) }()
	}
	return m, nil
}

func (m *meter) name() string {
	if m.v == nil {
		return binder
	}
	return m.v.name
}

// time is the processor time taken so far by each program.
func (m *meter) time() (map[string]time.Duration, error) {
	used, err := m.lab.cluster.Used()
	if err == nil && m.v != nil {
		used["program"], err = m.v.Used()
	}
	return used, err
}

// add adds what was measured, and what it cost for each claim, to the samples; the requests go to a file.
func (m *meter) add(ctx context.Context, claims int, values map[string]float64) error {
	used, err := m.time()
	if err != nil {
		return err
	}
	for name, was := range m.used {
		values[name+"-ms/claim"] = float64((used[name] - was).Milliseconds()) / float64(claims)
	}
	requests, err := m.lab.requests(ctx)
	if err != nil {
		return err
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%s %s, run %d, %d claims: requests for each claim\n", m.name(), m.benchmark, m.run, claims)
	for _, what := range slices.Sorted(maps.Keys(requests)) {
		if count := (requests[what] - m.requests[what]) / float64(claims); count >= 0.005 {
			fmt.Fprintf(&text, "  %6.2f  %s\n", count, what)
			values["requests/claim"] += count
		}
	}
	if m.profiled != nil {
		if err := <-m.profiled; err != nil {
			return err
		}
	}
	return errors.Join(m.lab.samples.Add(m.name(), m.benchmark, claims, values), m.lab.write("requests.txt", text.String()))
}

// requests counts what the API server was asked since its start, by verb, resource and status.
func (l *lab) requests(ctx context.Context) (map[string]float64, error) {
	body, err := l.client.Discovery().RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask the API server for its figures: %w", err)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("read the API server's figures: %w", err)
	}
	counts := map[string]float64{}
	for _, metric := range families["apiserver_request_total"].GetMetric() {
		labels := map[string]string{}
		for _, label := range metric.GetLabel() {
			labels[label.GetName()] = label.GetValue()
		}
		what := labels["verb"] + " " + labels["resource"]
		if labels["subresource"] != "" {
			what += "/" + labels["subresource"]
		}
		counts[what+" "+labels["code"]] += metric.GetCounter().GetValue()
	}
	return counts, nil
}

// profile writes processor profiles of the API server and of sharevol.
func (m *meter) profile(ctx context.Context) error {
	seconds := fmt.Sprint(int(profileTime.Seconds()))
	base := filepath.Join(m.lab.options.Dir, strings.ReplaceAll(m.name()+"-"+m.benchmark, "/", "-"))
	ours := make(chan error, 1)
	go func() {
		if m.v == nil || !m.v.leads {
			ours <- nil // the baseline serves none
			return
		}
		ours <- fetch(ctx, "http://"+m.v.Address()+"/debug/pprof/profile?seconds="+seconds, base+"-program.pprof")
	}()
	data, err := m.lab.client.Discovery().RESTClient().Get().AbsPath("/debug/pprof/profile").Param("seconds", seconds).DoRaw(ctx)
	if err == nil {
		err = os.WriteFile(base+"-apiserver.pprof", data, 0o644)
	}
	return errors.Join(err, <-ours)
}

func fetch(ctx context.Context, url, path string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %s: %w", url, response.Status, err)
	}
	return os.WriteFile(path, data, 0o644)
}

// write appends to a file beside the samples.
func (l *lab) write(name, text string) error {
	file, err := os.OpenFile(filepath.Join(l.options.Dir, name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Close())
}

// noteMemory adds the resident memory of a program to the samples.
func (l *lab) noteMemory(v *variant, benchmark string) error {
	now, peak, err := v.resident()
	if err != nil {
		return err
	}
	return l.samples.Add(v.name, benchmark, 1, map[string]float64{"resident-MB": now, "peak-MB": peak})
}
