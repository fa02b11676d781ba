// Package check looks at a cluster and at the NFS shares that its classes and volumes
// name, and reports what a provisioner would find there. It changes nothing: it asks
// the API server only to get and to list, mounts shares read-only at a place of its
// own, and takes none of the steps on a share that a provisioner may take only while
// it leads.
package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"

	"sharevol.dev/sharevol/internal/cluster"
	"sharevol.dev/sharevol/internal/fence"
	"sharevol.dev/sharevol/internal/kubeclient"
	"sharevol.dev/sharevol/internal/share"
	"sharevol.dev/sharevol/internal/share/helper"
	"sharevol.dev/sharevol/internal/share/operation"
	"sharevol.dev/sharevol/internal/volume"
)

const (
	// clusterTimeout bounds reading the cluster, once at the start and once at the end.
	clusterTimeout = time.Minute
	// lookTimeout bounds looking through one share, once it is mounted.
	lookTimeout = time.Minute
	// defaultTimeout is that of Options.Timeout.
	defaultTimeout = 15 * time.Second
	// closeTimeout bounds ending the helpers and unmounting at the end.
	closeTimeout = 30 * time.Second
	// atOnce is how many shares are looked at at a time. Each takes a process.
	atOnce = 4
)

// Options of a check.
type Options struct {
	Client kubernetes.Interface
	// Names are those that the provisioner serves.
	Names cluster.Names
	// Shares says whether to look at shares, too.
	Shares bool
	// Premounted, Mounter, Dir and Start are as in share.Options. Below Dir the check
	// makes a folder for its mounts, and removes it at the end.
	Premounted map[volume.Share]string
	Mounter    share.Mounter
	Dir        string
	Start      func(helper.Options) (share.Helper, error)
	// Timeout bounds one file operation, 15 s when zero.
	Timeout time.Duration
	// SizeTime is how long the sizes of a share's archives and trash are added up. They
	// are not measured when zero.
	SizeTime time.Duration
	// LookupHost asks the name service, net.DefaultResolver.LookupHost when nil.
	LookupHost func(ctx context.Context, host string) ([]string, error)
	// Now is the clock, time.Now when nil.
	Now func() time.Time
}

// Run does the check. It returns when ctx ends, too, and has unmounted everything then
// and ended its processes; Report.Problems says what could not be done, that included.
// It returns an error if there is nothing to report.
func Run(ctx context.Context, options Options) (*Report, error) {
	if options.Now == nil {
		options.Now = time.Now
	}
	if options.LookupHost == nil {
		options.LookupHost = net.DefaultResolver.LookupHost
	}
	c := &check{options: options, servers: servers{}}
	if err := c.readCluster(ctx); err != nil {
		return nil, err
	}
	c.report = c.describeCluster(options.Now())
	if options.Shares {
		c.lookAtShares(ctx)
	}
	if ctx.Err() != nil {
		c.problem("it was ended before it was done: %w", context.Cause(ctx))
	}
	c.report.conclude()
	return c.report, nil
}

// check is a Run under way.
type check struct {
	options Options
	cluster string
	state   *state // as it was when the check began
	servers servers
	report  *Report
	looked  []*shareState

	mu sync.Mutex // guards the report's Problems while shares are looked at
}

func (c *check) problem(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.Problems = append(c.report.Problems, fmt.Errorf(format, args...).Error())
}

// readCluster reads the cluster, and which one it is.
func (c *check) readCluster(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, clusterTimeout)
	defer cancel()
	if c.cluster, err = kubeclient.ClusterID(ctx, c.options.Client); err != nil {
		return err
	}
	c.state, err = c.read(ctx)
	return err
}

// lookAtShares looks at all shares and adds them to the report.
func (c *check) lookAtShares(ctx context.Context) {
	options := share.Options{
		Premounted: c.options.Premounted, Mounter: c.options.Mounter, ReadOnly: true, Fence: &fence.Fence{}, // never held: nothing is changed

		Timeout: cmp.Or(c.options.Timeout, defaultTimeout), Start: c.options.Start,
	}
	if len(c.options.Premounted) == 0 {
		room, err := newRoom(ctx, c.options.Dir, c.options.Mounter)
		if err != nil {
			c.problem("no share was looked at, as there is no place to mount them: %w", err)
			return
		}
		defer func() {
			if err := room.leave(); err != nil {
				c.problem("something is left behind: %w", err)
			}
		}()
		options.Dir = room.path
	}
	manager := share.NewManager(options)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.lookAtAll(ctx, manager)
	}()
	select {
	case <-done:
	case <-ctx.Done(): // what waits for a server returns when the manager closes
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	if err := manager.Close(closing); err != nil {
		c.problem("something is left behind: %w", err)
	}
	<-done
	if ctx.Err() == nil {
		c.confirm(ctx)
	}
}

func (c *check) lookAtAll(ctx context.Context, manager *share.Manager) {
	c.looked = c.shares(manager.Serves)
	c.servers.lookUp(ctx, c.state, c.options.LookupHost)
	turns := make(chan struct{}, atOnce)
	var group sync.WaitGroup
	for _, s := range c.looked {
		turns <- struct{}{}
		group.Go(func() {
			defer func() { <-turns }()
			c.look(ctx, manager, s)
		})
	}
	group.Wait()
	for _, s := range c.looked {
		c.report.Shares = append(c.report.Shares, s.report)
	}
}

// look looks at one share, mounted in the first of the ways that work.
func (c *check) look(ctx context.Context, manager *share.Manager, s *shareState) {
	if ctx.Err() != nil {
		return
	}
	ref, reached := s.reach(ctx, manager)
	if !reached || ctx.Err() != nil {
		if ctx.Err() == nil && !s.tried {
			c.problem("%s was not looked at: %w", s.report.Share, s.untried())
		}
		return
	}
	s.describe()
	found, err := share.Do(ctx, manager, ref, operation.Survey, c.ask(s))
	switch {
	case err == nil:
		s.found = &found
	case ctx.Err() == nil:
		s.fault("could not be looked through: %s", oneLine(err))
	}
}

// reach mounts the share and asks it what it is like.
func (s *shareState) reach(ctx context.Context, manager *share.Manager) (share.Ref, bool) {
	for _, way := range s.ways {
		ref, err := way.ref(ctx)
		if errors.Is(err, errSecretPerClaim) {
			continue
		}
		s.tried = true
		if err == nil {
			s.description, err = share.Do(ctx, manager, ref, operation.Describe, operation.None{})
		}
		switch {
		case err == nil:
			s.report.Reachable = true
			if s.report.Premounted == "" {
				s.report.MountOptions = append(s.report.MountOptions, way.options...)
			}
			return ref, true
		case ctx.Err() != nil: // it says nothing about the share
			return ref, false
		case s.report.Premounted != "":
			s.fault("%s", oneLine(err))
			return ref, false
		}
		s.fault("mounted as %s: %s", way.of, oneLine(err))
	}
	return share.Ref{}, false
}

// untried is why a share could not be asked anything.
func (s *shareState) untried() error {
	if len(s.ways) == 0 {
		return errors.New("whatever names it has mount options that are refused")
	}
	return errSecretPerClaim
}

// oneLine returns the text of an error as one line. That nothing was changed goes
// without saying here.
func oneLine(err error) string {
	text := strings.TrimPrefix(err.Error(), share.ErrUntouched.Error()+": ")
	return strings.ReplaceAll(strings.TrimSpace(text), "\n", "; ")
}
