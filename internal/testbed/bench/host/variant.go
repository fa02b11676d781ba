package host

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"sharevol.dev/sharevol/internal/testbed/controlplane"
	"sharevol.dev/sharevol/internal/testbed/guest"
	"sharevol.dev/sharevol/internal/volume"
)

const (
	startWithin = 2 * time.Minute
	startPoll   = 10 * time.Millisecond
	// settled is how long after its start a program is left alone: it looks at all that is there.
	settled = 2 * time.Second
)

// variant is one of the programs that are measured.
type variant struct {
	*controlplane.Provisioner
	name  string // in the samples
	leads bool   // it elects a leader, and says so in its metrics
}

// deadSource is where a helper opens its share. With the change it hangs there, as it does when the server is
// dead; the host has no NFS to show that with. It can be killed, as one that waits for a server can.
const (
	deadSource = "internal/share/helper/serve.go"
	deadOld    = "\troot, err := dirs.Open(path, dirs.Options{Fence: fence})\n"
	deadNew    = "\tif len(path) > 5 && path[len(path)-5:] == \"/dead\" {\n\t\tselect {}\n\t}\n" + deadOld
)

// build builds all programs, and makes the variants.
func (l *lab) build(ctx context.Context) error {
	program, baseline, dying := l.path("provisioner"), l.path("baseline"), l.path("provisioner-dead")
	if err := controlplane.BuildProvisioner(ctx, l.host, program); err != nil {
		return err
	}
	if err := controlplane.BuildChangedProvisioner(ctx, l.host, dying, deadSource, deadOld, deadNew); err != nil {
		return err
	}
	if err := l.host.Build(ctx, baseline, "build", "-C", "internal/testbed", "./bench/baseline"); err != nil {
		return err
	}
	common := []string{"--kubeconfig=" + l.kubeconfig(), "--driver-name=" + volume.DefaultDriverName}
	// As in the manifests, but for the premounted share.
	serving := append(common[:2:2], "--lease-namespace="+guest.SystemNamespace, "-v=2", "--premounted="+server+":"+sharePath+"="+l.share)
	if l.options.Profile {
		serving = append(serving, "--profile")
	}
	both := append(serving[:len(serving):len(serving)], "--premounted="+deadServer+":"+sharePath+"="+l.path("dead"))
	limits, err := defaults(ctx, program, "kube-api-qps", "kube-api-burst", "worker-threads")
	if err != nil {
		return err
	}
	for _, v := range []struct {
		to            **variant
		name, program string
		leads         bool
		args          []string
	}{
		{&l.ours, "ours", program, true, serving},
		{&l.floor, "floor", baseline, false, append(append(common[:2:2], "--as=floor"), limits...)},
		{&l.library, "shipped", baseline, false, append(common[:2:2], "--as=library", "--share="+l.share)},
		{&l.beside, "beside", dying, true, both},
		{&l.alone, "alone", dying, true, both},
	} {
		if *v.to, err = l.variant(v.name, v.program, v.leads, v.args); err != nil {
			return err
		}
	}
	return nil
}

// defaults returns flags of a program with the values that they have when they are not given.
func defaults(ctx context.Context, program string, flags ...string) ([]string, error) {
	help, err := exec.CommandContext(ctx, program, "--help").Output()
	if err != nil {
		return nil, fmt.Errorf("ask the provisioner for its flags: %w", err)
	}
	var args []string
	for _, name := range flags {
		found := regexp.MustCompile(`\n +-` + name + ` .*\n.*\(default ([0-9]+)\)`).FindSubmatch(help)
		if found == nil {
			return nil, fmt.Errorf("the provisioner's help does not tell the default of --%s", name)
		}
		args = append(args, fmt.Sprintf("--%s=%s", name, found[1]))
	}
	return args, nil
}

func (l *lab) variant(name, program string, leads bool, args []string) (*variant, error) {
	p, err := controlplane.NewProvisioner(controlplane.ProvisionerOptions{
		Name: name, Program: program, Dir: l.dir, Logs: l.path("logs"), Args: args,
		Env: []string{"POD_NAME=bench"}, // a start takes the lease of the one before
	})
	return &variant{Provisioner: p, name: name, leads: leads}, err
}

// with runs a program for as long as do takes, and returns how long it took to be ready.
func (l *lab) with(ctx context.Context, v *variant, do func(context.Context) error) (started time.Duration, err error) {
	if err := l.refresh(ctx); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := v.Start(ctx); err != nil {
		return 0, err
	}
	starting, cancel := context.WithTimeoutCause(ctx, startWithin, fmt.Errorf("not within %s", startWithin))
	defer cancel()
	if err := guest.WaitFor(starting, v.name+" to serve", startPoll, v.serves); err != nil {
		return 0, err
	}
	started = time.Since(began)
	if err := sleep(ctx, settled); err != nil {
		return 0, err
	}
	if err := do(ctx); err != nil {
		return started, err // the end of the lab ends it
	}
	state, err := v.Stop(ctx)
	if err == nil && !state.Success() {
		err = fmt.Errorf("%s stopped with %s: see %s", v.name, state, v.Log())
	}
	return started, err
}

// serves is whether a program works by now.
func (v *variant) serves(ctx context.Context) (bool, string, error) {
	if state := v.State(); state != nil {
		return false, "", fmt.Errorf("it ended: %s: see %s", state, v.Log())
	}
	status, body, err := v.Get(ctx, "/readyz")
	if err != nil || status != http.StatusOK || !v.leads {
		return err == nil && status == http.StatusOK, fmt.Sprint(status, body, err), nil
	}
	leader, err := v.metric(ctx, "sharevol_leader")
	return err == nil && leader == 1, fmt.Sprint("leader ", leader, err), nil
}

// metric returns one of sharevol's figures, by its name with all labels.
func (v *variant) metric(ctx context.Context, name string) (float64, error) {
	_, body, err := v.Get(ctx, "/metrics")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(body) {
		if value, found := strings.CutPrefix(line, name+" "); found {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("there is no figure %s", name)
}

// resident is the resident memory of the program now, and at its peak, in MB; its helpers are not counted.
func (v *variant) resident() (now, peak float64, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", v.PID()))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(status)) {
		fields := strings.Fields(line) // "VmRSS:", kB, "kB"
		if len(fields) < 2 || fields[0] != "VmRSS:" && fields[0] != "VmHWM:" {
			continue
		}
		kB, err := strconv.ParseFloat(fields[1], 64)
		if err != nil {
			return 0, 0, err
		}
		if fields[0] == "VmRSS:" {
			now = kB * 1024 / 1e6
		} else {
			peak = kB * 1024 / 1e6
		}
	}
	return now, peak, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
