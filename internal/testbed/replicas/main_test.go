// Package replicas tests real provisioner processes against a real API server on the host: what becomes of
// claims, volumes, directories and records when a leader dies, freezes and wakes, when the program is killed
// at every step that it takes and at random ones, under load, and when two clusters use one share.
package replicas

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"sharevol.dev/sharevol/internal/testbed"
	"sharevol.dev/sharevol/internal/testbed/controlplane"
)

// setUpWithin bounds what comes before the first test, of which building Kubernetes is the longest.
const setUpWithin = 40 * time.Minute

// lab is what all tests share.
type lab struct {
	ctx     context.Context // ends when the run is interrupted
	host    *testbed.Host
	dir     string
	cluster *controlplane.ControlPlane
	// The provisioner as it is shipped, and as it is built to be killed at its fault points.
	program, faulty string
}

// shared returns the lab, made by the first test that asks: a run of no test starts nothing.
var shared = sync.OnceValues(setUp)

var tearDown = func(failed bool) error { return nil }

func TestMain(m *testing.M) {
	code := m.Run()
	if err := tearDown(code != 0); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func setUp() (*lab, error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	host, err := testbed.NewHost(testbed.NewProgress(os.Stderr))
	if err != nil {
		return nil, err
	}
	starting, cancel := context.WithTimeout(ctx, setUpWithin)
	defer cancel()
	dir, release, err := host.RunFolder(starting, "replicas")
	if err != nil {
		return nil, err
	}
	l := &lab{
		ctx: ctx, host: host, dir: dir,
		program: filepath.Join(dir, "provisioner"), faulty: filepath.Join(dir, "provisioner-faults"),
	}
	tearDown = func(failed bool) error {
		defer stop()
		var err error
		if l.cluster != nil {
			err = l.cluster.Stop()
		}
		return errors.Join(err, release(failed))
	}
	if err := os.Mkdir(l.logs(), 0o755); err != nil {
		return nil, err
	}
	group, starting := errgroup.WithContext(starting)
	group.Go(func() error {
		if err := controlplane.BuildProvisioner(starting, host, l.program); err != nil {
			return err
		}
		return controlplane.BuildProvisioner(starting, host, l.faulty, "faults")
	})
	group.Go(func() (err error) {
		l.cluster, err = l.newCluster("cluster")
		return err
	})
	return l, group.Wait()
}

func (l *lab) logs() string { return filepath.Join(l.dir, "logs") }

// newCluster starts a control plane with sharevol's manifests installed.
func (l *lab) newCluster(name string) (*controlplane.ControlPlane, error) {
	dir := filepath.Join(l.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	cluster, err := controlplane.Start(l.ctx, l.host, controlplane.Options{Name: name, Dir: dir, Logs: l.logs()})
	if err != nil {
		return nil, err
	}
	if err := cluster.Install(l.ctx); err != nil {
		return nil, errors.Join(err, cluster.Stop())
	}
	return cluster, nil
}

// theLab returns the lab and a context that ends after within or when the run is interrupted.
func theLab(t *testing.T, within time.Duration) (context.Context, *lab) {
	t.Helper()
	l, err := shared()
	check(t, err)
	ctx, cancel := context.WithTimeoutCause(l.ctx, within, fmt.Errorf("the test is not done after %s", within))
	t.Cleanup(cancel)
	return ctx, l
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
