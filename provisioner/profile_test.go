package main

import (
	"context"
	"flag"
	"io"
	"net/http"
	"strings"
	"testing"

	"sharevol.dev/sharevol/internal/controller"
	"sharevol.dev/sharevol/internal/health"
)

// Profiles are served to those who ask for them with --profile, and to nobody else.
func TestProfile(t *testing.T) {
	metrics := controller.NewMetrics(version, nil, func() bool { return true })
	for _, test := range []struct {
		args []string
		path string
		want int
		says string
	}{
		{nil, "/debug/pprof/", http.StatusNotFound, ""},
		{nil, "/debug/pprof/heap", http.StatusNotFound, ""},
		{nil, "/healthz", http.StatusOK, "ok"},
		{[]string{"--profile"}, "/debug/pprof/", http.StatusOK, "goroutine"},
		{[]string{"--profile"}, "/debug/pprof/goroutine?debug=1", http.StatusOK, "TestProfile"},
		{[]string{"--profile"}, "/debug/pprof/profile?seconds=1", http.StatusOK, ""},
		{[]string{"--profile"}, "/healthz", http.StatusOK, "ok"},
	} {
		status, body := ask(t, metrics, test.args, test.path)
		if status != test.want || !strings.Contains(body, test.says) {
			t.Errorf("%q %s: %d, %.300s", test.args, test.path, status, body)
		}
	}
}

// ask gets a path of a program with these arguments.
func ask(t *testing.T, metrics *controller.Metrics, args []string, path string) (status int, body string) {
	t.Helper()
	var config Config
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	config.AddFlags(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	listener, err := health.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- health.Serve(ctx, listener, (&program{config: config, metrics: metrics}).answers()) }()
	defer func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	response, err := http.Get("http://" + listener.Addr().String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(data)
}
