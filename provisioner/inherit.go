package main

import (
	"bytes"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"

	"sharevol.dev/sharevol/internal/cli"
)

// firstProcess is where the command line of a container's first process is.
const firstProcess = "/proc/1/cmdline"

// servingArgs returns the arguments of the provisioner that runs in the same container,
// none if there is no such. A check in its pod is to look at what it serves, without
// being told all that again.
func servingArgs(commandLine string) []string {
	data, err := os.ReadFile(commandLine)
	if err != nil || os.Getpid() == 1 {
		return nil
	}
	var words []string
	for word := range bytes.SplitSeq(bytes.TrimSuffix(data, []byte{0}), []byte{0}) {
		words = append(words, string(word))
	}
	if filepath.Base(words[0]) != "sharevol-provisioner" || len(words) > 1 && words[1] == checkCommand {
		return nil
	}
	return words[1:]
}

// inherit returns args, and before them those of serving that a check takes, too, and
// that args do not set themselves. It returns these alone as well.
func inherit(args, serving []string) (all, inherited []string) {
	given := setBy(&CheckConfig{}, args)
	for _, f := range setBy(&Config{}, serving) {
		named := func(g setFlag) bool { return g.name == f.name }
		if slices.Contains(sharedFlags, f.name) && !slices.ContainsFunc(given, named) {
			inherited = append(inherited, "--"+f.name+"="+f.value)
		}
	}
	return slices.Concat(inherited, args), inherited
}

// setFlag is a flag that a command line sets.
type setFlag struct{ name, value string }

// setBy returns the flags that args set, up to the first fault.
func setBy(config cli.Config, args []string) []setFlag {
	known := flag.NewFlagSet("", flag.ContinueOnError)
	config.AddFlags(known)
	known.Bool("version", false, "")
	known.Int("v", 0, "")
	var set []setFlag
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	known.VisitAll(func(f *flag.Flag) {
		note := func(value string) error {
			set = append(set, setFlag{f.Name, value})
			return nil
		}
		if b, ok := f.Value.(interface{ IsBoolFlag() bool }); ok && b.IsBoolFlag() {
			flags.BoolFunc(f.Name, "", note)
		} else {
			flags.Func(f.Name, "", note)
		}
	})
	_ = flags.Parse(args) // whoever takes them says what is wrong
	return set
}
