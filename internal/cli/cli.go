// Package cli reads the flags of both programs. One error lists every fault of a command
// line, with what is allowed.
package cli

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"

	"k8s.io/klog/v2"
)

// Program describes a program, for --help and --version.
type Program struct {
	Name    string
	Purpose string // one sentence
	Version string
}

// Config is what a program's command line sets.
type Config interface {
	// AddFlags adds the program's own flags, with their defaults.
	AddFlags(*flag.FlagSet)
	// Validate returns every fault that no single flag shows.
	Validate() error
}

// Read reads a command line into config, with --help, --version and klog's -v. Its
// error lists every fault. It returns false where the command line asks only for help or
// version, which it has printed to stdout.
func Read(program Program, config Config, args []string, stdout io.Writer) (proceed bool, err error) {
	flags := flag.NewFlagSet(program.Name, flag.ContinueOnError)
	config.AddFlags(flags)
	version := flags.Bool("version", false, "print the version and exit")
	verbosity(flags)
	err = parse(flags, args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintf(stdout, "%s\n\nUsage: %s [flags]\n\nFlags:\n", program.Purpose, program.Name)
		flags.SetOutput(stdout)
		flags.PrintDefaults()
		return false, nil
	case *version && err == nil:
		_, err := fmt.Fprintln(stdout, program.Name, program.Version)
		return false, err
	}
	if err := errors.Join(err, config.Validate()); err != nil {
		return false, fmt.Errorf("bad command line:\n%w\n--help lists the flags", err)
	}
	return true, nil
}

// parse reads args into flags. Its error lists every fault, except that it is
// flag.ErrHelp alone where help was asked for.
func parse(flags *flag.FlagSet, args []string) error {
	// What Parse of the standard library prints would come before our own words.
	flags.SetOutput(io.Discard)
	var faults []error
	for {
		err := flags.Parse(args)
		if rest := flags.Args(); len(rest) < len(args) || len(args) == 0 {
			args = rest // what follows the faulty flag
		} else if err != nil {
			args = args[1:] // not a flag at all, which Parse has left there
		}
		switch {
		case errors.Is(err, flag.ErrHelp):
			return err
		case err != nil:
			faults = append(faults, err)
		case len(args) > 0: // parsing stops at the first word that is not a flag
			faults = append(faults, fmt.Errorf("unexpected argument %q: only flags are allowed", args[0]))
			args = args[1:]
		default:
			return errors.Join(faults...)
		}
	}
}

// verbosity adds klog's -v, and none of its other flags: logs go to standard error.
func verbosity(flags *flag.FlagSet) {
	all := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(all)
	v := all.Lookup("v")
	flags.Var(v.Value, v.Name, "log `level`: 0 for events that need attention, 2 for changes, 4 for calls, 5 for more")
}

// Int adds a flag for a whole number from least to most, with its default in *p.
func Int(flags *flag.FlagSet, p *int, name string, least, most int, usage string) {
	flags.Var(&number{p: p, least: least, most: most}, name, usage)
}

type number struct {
	p           *int
	least, most int
}

func (n *number) String() string {
	if n.p == nil { // the zero value, which package flag makes to find the default
		return ""
	}
	return strconv.Itoa(*n.p)
}

func (n *number) Set(value string) error {
	i, err := strconv.Atoi(value)
	if err != nil || i < n.least || i > n.most {
		return fmt.Errorf("must be a whole number from %d to %d", n.least, n.most)
	}
	*n.p = i
	return nil
}

// The CSI specification's rule for driver names, and the API server's for the name
// of a CSIDriver (a DNS subdomain, RFC 1123).
var driverName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)

// CheckDriverName returns what is wrong with the value of --driver-name.
func CheckDriverName(value string) error {
	if len(value) > 63 || !driverName.MatchString(value) {
		return fmt.Errorf("--driver-name=%q: must be a domain name of at most 63 lower-case letters, digits, dots and dashes, for example csi.example.com", value)
	}
	return nil
}

// CheckAddress returns what is wrong with the value of an address flag.
func CheckAddress(name, value string) error {
	_, port, err := net.SplitHostPort(value)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("--%s=%q: must be HOST:PORT with a port from 0 to 65535, for example 127.0.0.1:9000", name, value)
	}
	return nil
}
