package versions

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"

	"sharevol.dev/sharevol/internal/testbed"
	"sharevol.dev/sharevol/internal/testbed/controlplane"
)

// supported are the releases that are tested, and what README says to apply there.
var supported = []target{
	{"v1.15.12", "overlays/legacy", "legacy", "ha-before-1.21", nil},
	{"v1.20.15", "overlays/before-1.30", "before-1.30", "ha-before-1.21", []string{"monitoring"}},
	{"v1.29.15", "overlays/before-1.30", "before-1.30", "ha", []string{"monitoring"}},
	{"", "", "", "ha", []string{
		"monitoring", "overlays/ha", "overlays/no-sidecar", "overlays/selinux", "overlays/unprivileged",
		"overlays/from-csi-driver-nfs", "overlays/from-nfs-subdir",
	}},
}

// target is a release and what is tested there.
type target struct {
	release       testbed.Release
	kustomization string   // below manifests
	age, ha       string   // its components, for such releases and for two replicas
	others        []string // likewise: all other kustomizations that are for the release
}

// choices are the components that are for the release, whatever its age.
func (one target) choices() []string {
	return []string{one.ha, "no-sidecar", "selinux", "unprivileged"}
}

// combined are the choices, each by itself and all together, with the component for the release's age.
func (one target) combined() [][]string {
	all := [][]string{append([]string{"from-csi-driver-nfs"}, one.choices()...)}
	for _, choice := range one.choices() {
		all = append(all, []string{choice})
	}
	for i := range all {
		if one.age != "" {
			all[i] = append(all[i], one.age)
		}
	}
	return all
}

// chosen are the releases that the environment variable RELEASES names, with commas in
// between, or all.
func chosen() ([]target, error) {
	names := strings.Split(os.Getenv("RELEASES"), ",")
	if names[0] == "" || names[0] == "all" {
		return supported, nil
	}
	var some []target
	var all []string
	for _, one := range supported {
		all = append(all, one.release.String())
		if i := slices.Index(names, one.release.String()); i >= 0 {
			some, names = append(some, one), slices.Delete(names, i, i+1)
		}
	}
	if len(names) > 0 {
		return nil, fmt.Errorf("RELEASES: there is no %s, but %s", strings.Join(names, ", no "), strings.Join(all, ", "))
	}
	return some, nil
}

// promises are what is tested on each release, in this order: each may count on what those before it have left.
var promises = []struct {
	name, text string
	needed     bool // without it the others mean nothing
	test       func(ctx context.Context, t *testing.T, c *cluster)
}{
	{"apply", "`kubectl apply -k` of that; the API server keeps every field", true, testApply},
	{"pods", "it admits the pods of both programs", false, testPods},
	{"start", "two replicas start, with the manifests' service account and rights (RBAC)", true, testStart},
	{"bind", "a claim gets a volume and is bound", false, testBind},
	{"WaitForFirstConsumer", "`WaitForFirstConsumer`: not before a node is selected; back to the scheduler when that node is gone", false, testWaitForFirstConsumer},
	{"delete", "`onDelete: delete`: claim, volume and directory go", false, testDelete},
	{"volume-first", "a volume deleted before its claim goes with the claim, and its directory", false, testVolumeFirst},
	{"retain", "`onDelete: retain` and `reclaimPolicy: Retain` keep the data", false, testRetain},
	{"archive", "`onDelete: archive` moves it aside", false, testArchive},
	{"takeover", "the leader is killed (`kill -9`): the other replica takes over within 20 s", false, testTakeover},
	{"streaming-lists", "no hang; and with client-go's streaming lists (`WatchListClient`), which are switched off", false, testStreamingLists},
	{"forbidden", "the audit log and the programs' logs hold nothing that was forbidden", false, testForbidden},
	{"others", "other manifests that apply as well, components one by one and together, with pods that are admitted", false, testOthers},
}

// cluster is a control plane of one release with sharevol installed, as far as the tests have come.
type cluster struct {
	*controlplane.ControlPlane
	target
	lab          *lab
	name         string
	cell         string // of the table, for the promise that is being tested, if it is kept
	client       kubernetes.Interface
	namespace    string // that the manifests install into
	kubeconfig   string // of the provisioner's service account there
	share        string // the local folder
	leader       *controlplane.Provisioner
	standby      *controlplane.Provisioner
	streaming    *controlplane.Provisioner
	streamsSince time.Time
	running      []*controlplane.Provisioner // those that must run
	closers      []func() error              // what is to be ended before the control plane
}

// Every release that README names and that is chosen: each on a control plane of its own, as many at a time as there are processors.
func TestReleases(t *testing.T) {
	l, err := shared()
	check(t, err)
	results := newResults()
	t.Run("on", func(t *testing.T) { // returns when all are done
		for _, one := range l.releases {
			t.Run(one.release.String(), func(t *testing.T) {
				t.Parallel()
				testRelease(t, l, &cluster{
					target: one, lab: l, name: one.release.String(),
				}, results)
			})
		}
	})
	if !t.Failed() {
		results.holdReadme(t, l.host.Root())
	}
}

func testRelease(t *testing.T, l *lab, c *cluster, results *results) {
	ctx, cancel := context.WithTimeoutCause(l.ctx, testMax, fmt.Errorf("the test is not done after %s", testMax))
	defer cancel()
	began := time.Now()
	c.start(ctx, t)
	version, err := c.client.Discovery().ServerVersion()
	check(t, err)
	if c.release != "" && version.GitVersion != string(c.release) {
		t.Fatalf("the API server of %s says that it is %s", c.release, version.GitVersion)
	}
	t.Logf("%s is up after %s", version.GitVersion, time.Since(began).Round(100*time.Millisecond))
	results.begin(c.release, version.GitVersion)
	for _, promise := range promises {
		step := time.Now()
		c.cell = "yes"
		kept := t.Run(promise.name, func(t *testing.T) { promise.test(ctx, t, c) })
		t.Logf("%s: %s", promise.name, time.Since(step).Round(10*time.Millisecond))
		if kept {
			results.kept(c.release, promise.text, c.cell)
		} else if promise.needed {
			return
		}
	}
}

// start starts the control plane; nothing is installed yet.
func (c *cluster) start(ctx context.Context, t *testing.T) {
	t.Helper()
	c.share = filepath.Join(c.lab.dir, "share-"+c.name)
	dir := filepath.Join(c.lab.dir, c.name)
	for _, folder := range []string{dir, c.share} {
		check(t, os.Mkdir(folder, 0o755))
	}
	var err error
	c.ControlPlane, err = controlplane.Start(ctx, c.lab.host, controlplane.Options{
		Name: c.name, Dir: dir, Logs: c.lab.logs(), Release: c.release,
	})
	check(t, err)
	t.Cleanup(func() {
		for _, end := range append(c.closers, c.Stop) {
			if err := end(); err != nil {
				t.Error(err)
			}
		}
	})
	c.client = c.Client()
}
