// Command bench measures how fast sharevol is where users wait and how small where they pay, each beside a
// baseline that is measured in the same run on the same machine, and prints a table of that with what is to be
// reached. Slowness is no error: the exit status is 1 only if something does not work.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/testbed"
	"sharevol.dev/sharevol/internal/testbed/bench/host"
	"sharevol.dev/sharevol/internal/testbed/bench/machine"
	"sharevol.dev/sharevol/internal/testbed/bench/report"
)

func main() {
	if testbed.InMachine() { // which runs this program again
		os.Exit(machine.Guest(os.Args[1:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are what the command line sets.
type options struct {
	short, profile bool
	runs           int      // of each variant; as many as the form has if zero
	areas          []string // of all parts; all if empty
	dir            string
	log            func(format string, args ...any)
}

// part measures some areas.
type part struct {
	areas []string
	run   func(ctx context.Context, o options) ([]report.Row, error)
}

var parts = []part{
	{host.Areas, func(ctx context.Context, o options) ([]report.Row, error) {
		return host.Run(ctx, host.Options{Short: o.short, Runs: o.runs, Dir: o.dir, Areas: o.areas, Profile: o.profile, Log: o.log})
	}},
	{machine.Areas, func(ctx context.Context, o options) ([]report.Row, error) {
		return machine.Run(ctx, machine.Options{Short: o.short, Areas: o.areas, Dir: o.dir, Log: o.log})
	}},
}

// run measures what args ask for, and prints the table.
func run(ctx context.Context, args []string, stdout io.Writer) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	testHost, err := testbed.NewHost(testbed.NewProgress(os.Stderr))
	if err != nil {
		return err
	}
	began := time.Now()
	o.dir = filepath.Join(testHost.Root(), ".testbed", "bench", began.UTC().Format("2006-01-02T150405Z"))
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return fmt.Errorf("make the folder of the samples: %w", err)
	}
	o.log = func(format string, args ...any) {
		fmt.Fprintf(stdout, "%7s  %s\n", time.Since(began).Round(time.Second), fmt.Sprintf(format, args...))
	}
	var rows []report.Row
	for _, p := range parts {
		asked := o
		asked.areas = slices.DeleteFunc(slices.Clone(o.areas), func(area string) bool { return !slices.Contains(p.areas, area) })
		if len(o.areas) > 0 && len(asked.areas) == 0 {
			continue
		}
		var measured []report.Row
		measured, err = p.run(ctx, asked)
		rows = append(rows, measured...)
		if err != nil {
			break
		}
	}
	return errors.Join(err, publish(stdout, o, began, args, rows))
}

// parse reads the command line. Its error names every unknown area.
func parse(args []string) (options, error) {
	var o options
	var areas []string
	for _, p := range parts {
		areas = append(areas, p.areas...)
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.BoolVar(&o.short, "short", false, "one run with small numbers, to see that all works")
	flags.BoolVar(&o.profile, "profile", false, "write processor profiles, too")
	flags.IntVar(&o.runs, "runs", 0, "`number` of runs of each variant, if not 5, or 1 of the short form")
	only := flags.String("only", "", "comma-separated `areas`, of "+strings.Join(areas, ", "))
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	var errs []error
	if flags.NArg() > 0 {
		errs = append(errs, fmt.Errorf("unexpected argument %q", flags.Arg(0)))
	}
	if o.runs < 0 {
		errs = append(errs, fmt.Errorf("-runs=%d: must not be less than 0", o.runs))
	}
	if *only != "" {
		o.areas = strings.Split(*only, ",")
	}
	for _, area := range o.areas {
		if !slices.Contains(areas, area) {
			errs = append(errs, fmt.Errorf("-only: there is no area %q, but %s", area, strings.Join(areas, ", ")))
		}
	}
	return o, errors.Join(errs...)
}

// publish prints the table, and writes it beside the samples.
func publish(stdout io.Writer, o options, began time.Time, args []string, rows []report.Row) error {
	head := fmt.Sprintf("\n%s, %s, took %s: bench %s\n", began.UTC().Format("2006-01-02"), size(), time.Since(began).Round(time.Second), strings.Join(args, " "))
	var text, markdown strings.Builder
	text.WriteString(head + "\n")
	markdown.WriteString(head + "\n")
	err := errors.Join(report.Print(&text, rows), report.Markdown(&markdown, rows),
		os.WriteFile(filepath.Join(o.dir, "table.txt"), []byte(text.String()), 0o644),
		os.WriteFile(filepath.Join(o.dir, "table.md"), []byte(markdown.String()), 0o644))
	_, printed := fmt.Fprintf(stdout, "%s\nraw samples: %s\n", text.String(), o.dir)
	return errors.Join(err, printed)
}

// size says what the computer has.
func size() string {
	var info unix.Sysinfo_t
	memory := "unknown memory"
	if unix.Sysinfo(&info) == nil {
		memory = fmt.Sprintf("%.0f GB of memory", float64(info.Totalram)*float64(info.Unit)/1e9)
	}
	return fmt.Sprintf("%d processors, %s, %s", runtime.NumCPU(), memory, runtime.Version())
}
