// Package versions tests sharevol on control planes of old and new releases of Kubernetes: what README says to
// apply there is applied, and provisioners serve claims with the rights that this gives them. README's
// table of what was tested is what these tests say.
package versions

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
	"sharevol.dev/sharevol/internal/testbed/guest"
)

const (
	setUpWithin = 50 * time.Minute // of which building four releases of Kubernetes is the most
	testMax     = 5 * time.Minute  // of one release
	poll        = 50 * time.Millisecond
)

// lab is what the tests of all releases share.
type lab struct {
	ctx      context.Context // ends when the run is interrupted
	releases []target
	host     *testbed.Host
	dir      string
	// The provisioner as it is shipped, and one that lets client-go stream its lists.
	program, streaming string
}

// shared returns the lab, made by the first test that asks: a run of no test builds nothing.
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
	releases, err := chosen()
	if err != nil {
		return nil, err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	host, err := testbed.NewHost(testbed.NewProgress(os.Stderr))
	if err != nil {
		return nil, err
	}
	starting, cancel := context.WithTimeout(ctx, setUpWithin)
	defer cancel()
	dir, release, err := host.RunFolder(starting, "versions")
	if err != nil {
		return nil, err
	}
	l := &lab{
		ctx: ctx, releases: releases, host: host, dir: dir,
		program: filepath.Join(dir, "provisioner"), streaming: filepath.Join(dir, "provisioner-streaming"),
	}
	tearDown = func(failed bool) error {
		defer stop()
		return release(failed)
	}
	if err := os.Mkdir(l.logs(), 0o755); err != nil {
		return nil, err
	}
	group, starting := errgroup.WithContext(starting)
	group.Go(func() error {
		if err := controlplane.BuildProvisioner(starting, host, l.program); err != nil {
			return err
		}
		return controlplane.BuildChangedProvisioner(starting, host, l.streaming, streamingSource, streamingOff, streamingOn)
	})
	group.Go(func() error { // one after another: each keeps all processors busy
		for _, one := range l.releases {
			if _, err := host.ControlPlane(starting, one.release); err != nil {
				return err
			}
		}
		return nil
	})
	return l, group.Wait()
}

func (l *lab) logs() string { return filepath.Join(l.dir, "logs") }

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// waitFor waits for a check, some time at most.
func waitFor(ctx context.Context, t *testing.T, what string, within time.Duration, ask guest.Check) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("not within %s", within))
	defer cancel()
	check(t, guest.WaitFor(ctx, what, poll, ask))
}

// alive makes a check fail for good once something has ended that must run.
func (c *cluster) alive() error {
	all := []error{c.Alive()}
	for _, p := range c.running {
		if state := p.State(); state != nil {
			all = append(all, fmt.Errorf("%s ended by itself: %s", p.Name(), state))
		}
	}
	return errors.Join(all...)
}
