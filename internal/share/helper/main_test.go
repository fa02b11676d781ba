package helper_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"sharevol.dev/sharevol/internal/share/dirs"
	"sharevol.dev/sharevol/internal/share/helper"
	"sharevol.dev/sharevol/internal/share/helper/fakehelper"
	"sharevol.dev/sharevol/internal/share/operation"
	"sharevol.dev/sharevol/internal/volume"
)

var ctx = context.Background()

// programs are what the test's program can be, beside the test and a helper.
var programs = map[string]func() error{
	"echo-helper":     func() error { return helper.Serve(os.Stdin, os.Stdout, openEcho) },
	"counting-helper": func() error { return helper.Serve(os.Stdin, os.Stdout, openCounting) },
	"deaf-helper":     func() error { time.Sleep(time.Hour); return nil },
	"parent":          parent,
	"says": func() error {
		if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
			return err
		}
		fmt.Print(os.Args[2])
		time.Sleep(time.Hour)
		return nil
	},
	"says-without-end": func() error {
		fmt.Print(`{"id":1,"result":"`)
		for {
			if _, err := fmt.Print(strings.Repeat("x", 1<<20)); err != nil {
				return err
			}
		}
	},
}

func TestMain(m *testing.M) {
	fakehelper.Main()
	if len(os.Args) > 1 {
		if program, known := programs[os.Args[1]]; known {
			if err := program(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

func command(words ...string) []string { return append([]string{"/proc/self/exe"}, words...) }

// process is a helper with some operations by their names.
type process struct{ *helper.Process }

func (p process) Create(ctx context.Context, create dirs.Create) (dirs.Created, error) {
	return operation.Create.On(ctx, p, create)
}

func (p process) Delete(ctx context.Context, target dirs.Target) error {
	_, err := operation.Delete.On(ctx, p, target)
	return err
}

// start starts a helper and sees to it that nothing is left of it.
func start(t *testing.T, options helper.Options) process {
	t.Helper()
	fakehelper.CheckLeaks(t)
	if options.Timeout == 0 {
		options.Timeout = 10 * time.Second
	}
	p, err := helper.Start(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.End(ctx); err != nil {
			t.Error(err)
		}
	})
	return process{p}
}

// open starts a helper for an empty share and opens it.
func open(t *testing.T, options helper.Options) (process, string) {
	t.Helper()
	if options.Path == "" {
		options.Path = t.TempDir()
	}
	p := start(t, options)
	must(t, p.Open(ctx))
	return p, options.Path
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(dir volume.SubDir) dirs.Create {
	return dirs.Create{SubDir: dir, Owner: dirs.Owner{Cluster: "cluster", Volume: "pvc-1"}, Mode: 0o777, UID: -1, GID: -1}
}

// inBackground calls f and returns where its error will be.
func inBackground(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return done
}

// echo answers with the arguments, after a step; "fail" fails as its argument says.
type echo struct{ helper.Work }

func openEcho(string, bool, func() error) (helper.Work, error) { return echo{}, nil }

func (echo) Run(ctx context.Context, name string, arguments json.RawMessage) (any, error) {
	if name == "fail" {
		which, err := strconv.Atoi(string(arguments))
		return nil, errors.Join(err, failures[which])
	}
	dirs.Progress(ctx)()
	return arguments, nil
}

func (echo) Probe(context.Context) error { return nil }

// counting takes step after step for as long as it may, and counts them in a file.
type counting struct {
	helper.Work
	path  string
	fence func() error
}

func openCounting(path string, _ bool, fence func() error) (helper.Work, error) {
	return counting{path: path, fence: fence}, nil
}

func (c counting) Run(ctx context.Context, name string, _ json.RawMessage) (any, error) {
	for n := 1; name == operation.Delete.Name; n++ {
		if err := errors.Join(c.fence(), ctx.Err()); err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(c.path, "steps"), []byte(strconv.Itoa(n)), 0o600); err != nil {
			return nil, err
		}
		dirs.Progress(ctx)()
		time.Sleep(10 * time.Millisecond)
	}
	return operation.None{}, nil
}

// steps returns how many steps a counting helper has taken.
func steps(path string) int {
	content, _ := os.ReadFile(filepath.Join(path, "steps"))
	n, _ := strconv.Atoi(string(content))
	return n
}
