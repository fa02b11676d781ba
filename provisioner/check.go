package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"sharevol.dev/sharevol/internal/check"
	"sharevol.dev/sharevol/internal/cli"
	"sharevol.dev/sharevol/internal/fence"
	"sharevol.dev/sharevol/internal/fs"
	"sharevol.dev/sharevol/internal/kubeclient"
	"sharevol.dev/sharevol/internal/mount"
)

// checkCommand is the first argument of the program when it is to check and not to serve.
const checkCommand = "check"

// CheckConfig is what the command line of a check sets.
type CheckConfig struct {
	serving  Config // what a check has in common with serving
	Output   string
	Shares   bool
	Timeout  time.Duration
	SizeTime time.Duration
}

// sharedFlags are the flags of serving that a check has, too.
var sharedFlags = []string{"driver-name", "adopt-provisioner", "default-on-delete", "premounted", "kubeconfig", "kube-api-qps", "kube-api-burst"}

// AddFlags adds the check's flags with their defaults.
func (c *CheckConfig) AddFlags(flags *flag.FlagSet) {
	all := flag.NewFlagSet("", flag.ContinueOnError)
	c.serving.AddFlags(all)
	for _, name := range sharedFlags {
		f := all.Lookup(name)
		flags.Var(f.Value, f.Name, f.Usage)
	}
	flags.StringVar(&c.Output, "o", "table", "`form` of the output: table for people, json for machines")
	flags.BoolVar(&c.Shares, "shares", true, "look at the shares, too, for which they are mounted read-only; false reads only the cluster")
	flags.DurationVar(&c.Timeout, "timeout", 5*time.Minute, "`time` after which it ends, whatever is not done")
	flags.DurationVar(&c.SizeTime, "size-time", 20*time.Second, "`time` for adding up the sizes of each share's archives and trash; 0 leaves them out")
}

// Validate names every fault that no single flag shows.
func (c *CheckConfig) Validate() error {
	c.serving.LeaderElect = false // it takes no Lease
	errs := []error{c.serving.Validate()}
	if c.Output != "table" && c.Output != "json" {
		errs = append(errs, fmt.Errorf("-o=%q: must be table or json", c.Output))
	}
	if c.Timeout <= 0 {
		errs = append(errs, fmt.Errorf("--timeout=%v: must be longer than 0", c.Timeout))
	}
	if c.SizeTime < 0 {
		errs = append(errs, fmt.Errorf("--size-time=%v: must not be less than 0", c.SizeTime))
	}
	return errors.Join(errs...)
}

// checkMain is the program as a check. It returns its exit status: 0 if all is well, 1
// if something needs attention, 2 if something could not be checked.
func checkMain(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	// A terminal that goes away, or a reader of the output, ends it cleanly as well.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	status, err := runCheck(ctx, args, stdout, stderr)
	if err != nil {
		fmt.Fprintf(stderr, "sharevol-provisioner check: %v\n", err)
		return 2
	}
	return status
}

func runCheck(ctx context.Context, args []string, stdout, stderr io.Writer) (int, error) {
	args, inherited := inherit(args, servingArgs(firstProcess))
	if len(inherited) > 0 {
		fmt.Fprintf(stderr, "with the flags of the provisioner that runs here: %q\n", inherited)
	}
	var config CheckConfig
	program := cli.Program{
		Name: "sharevol-provisioner check", Version: version,
		Purpose: "sharevol-provisioner check looks at the cluster and at the NFS shares that its classes and volumes name, and reports what\n" +
			"needs attention. It changes nothing. Exit status: 0 all is well, 1 something needs attention, 2 something could not be checked.",
	}
	if proceed, err := cli.Read(program, &config, args, stdout); err != nil || !proceed {
		return 0, err
	}
	setUpLogs()
	ctx, cancel := context.WithTimeoutCause(ctx, config.Timeout, fmt.Errorf("--timeout=%v is over", config.Timeout))
	defer cancel()
	options, err := config.options()
	if err != nil {
		return 0, err
	}
	report, err := check.Run(ctx, options)
	if err != nil {
		return 0, err
	}
	write := report.WriteTable
	if config.Output == "json" {
		write = report.WriteJSON
	}
	return report.ExitStatus(), write(stdout)
}

// options wires the check. Its client sends nothing that could change anything.
func (c *CheckConfig) options() (check.Options, error) {
	client, err := kubeclient.New(kubeclient.Options{
		Kubeconfig: c.serving.Kubeconfig, QPS: float32(c.serving.KubeAPIQPS), Burst: c.serving.KubeAPIBurst,
		UserAgent: "sharevol-provisioner/" + version + " check",
		Fence:     (&fence.Fence{}).Check, // never held: a check changes nothing
	})
	if err != nil {
		return check.Options{}, err
	}
	options := check.Options{
		Client: client,
		Names:  c.serving.names(),
		Shares: c.Shares, Premounted: c.serving.Premounted, SizeTime: c.SizeTime,
	}
	if c.Shares && len(c.serving.Premounted) == 0 {
		mounter := mount.New(mount.Options{Helpers: fs.Types.Helpers()})
		err := mounter.Check()
		if os.Geteuid() != 0 {
			err = errors.Join(err, errors.New("it takes root"))
		}
		if err != nil {
			return check.Options{}, fmt.Errorf("shares can't be mounted (--premounted looks at them without mounting, --shares=false leaves them out): %w", err)
		}
		options.Mounter = mounter
	}
	return options, nil
}
