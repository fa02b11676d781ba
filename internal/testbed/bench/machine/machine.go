// Package machine measures what takes real NFS: it boots a machine with a user-mode kernel and measures there
// what publishing a volume costs over the bare mount, how fast a big volume is removed, and what the programs
// take of memory. All are ratios to something that was measured in the same machine, beside it: the kernel's
// system calls are slow, so that times themselves say nothing of other machines. Sizes are what they are.
package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"sharevol.dev/sharevol/internal/testbed"
	"sharevol.dev/sharevol/internal/testbed/bench/report"
)

// The areas that Run measures.
const (
	Publish   = "publish"
	Remove    = "rm"
	Footprint = "footprint"
)

// Areas are all of them, in the order in which they are measured.
var Areas = []string{Publish, Remove, Footprint}

const (
	// Programs below testbed.GuestShare, built as they are for the images.
	nodeProgram, provisionerProgram, registrarProgram = "sharevol-node", "sharevol-provisioner", "registrar"

	buildWithin = 15 * time.Minute // with a cold cache
	longWithin  = time.Hour
	shortWithin = 8 * time.Minute
)

// Options say what to measure.
type Options struct {
	Short bool                             // one run of small numbers, to see that all works
	Areas []string                         // all when empty
	Dir   string                           // an existing folder for the raw samples
	Log   func(format string, args ...any) // of progress; nowhere when nil
}

// Run boots a machine, measures there, and returns the table's rows. The program must be one that calls Guest
// when testbed.InMachine says so, as the machine runs it again; and one that needs no libc. The raw samples are
// left in Dir/machine.json. Nothing of the machine outlives Run or this process.
func Run(ctx context.Context, options Options) (rows []report.Row, err error) {
	if len(options.Areas) == 0 {
		options.Areas = Areas
	}
	for _, area := range options.Areas {
		if !slices.Contains(Areas, area) {
			return nil, fmt.Errorf("area %q: must be one of %q", area, Areas)
		}
	}
	if options.Log == nil {
		options.Log = func(string, ...any) {}
	}
	output := &console{log: options.Log, samples: samples{}}
	host, err := testbed.NewHost(testbed.NewProgress(output))
	if err != nil {
		return nil, err
	}
	dir, release, err := host.RunFolder(ctx, "bench-programs")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, release(err != nil)) }()
	files, err := buildPrograms(ctx, host, dir)
	if err != nil {
		return nil, err
	}
	if slices.Contains(options.Areas, Footprint) {
		if err := sizes(ctx, host, files, output.samples); err != nil {
			return nil, err
		}
	}
	code, err := host.RunInMachine(ctx, testbed.Run{
		Name: "bench", Args: guestArgs(options), Files: files, Output: output, Timeout: within(options),
	})
	if err != nil {
		return nil, err
	}
	if code != 0 {
		return nil, fmt.Errorf("the bench failed in the machine with status %d: see above", code)
	}
	raw, err := json.MarshalIndent(output.samples, "", " ")
	if err != nil {
		return nil, fmt.Errorf("write the samples: %w", err)
	}
	if err := os.WriteFile(filepath.Join(options.Dir, "machine.json"), raw, 0o644); err != nil {
		return nil, fmt.Errorf("write the samples: %w", err)
	}
	return output.samples.rows(options.Areas), nil
}

func within(options Options) time.Duration {
	if options.Short {
		return shortWithin
	}
	return longWithin
}

// buildPrograms builds what is measured, the first two as the Dockerfiles do, and returns the files by their
// names in the machine.
func buildPrograms(ctx context.Context, host *testbed.Host, dir string) (map[string]string, error) {
	version, err := host.Version()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, buildWithin, fmt.Errorf("not built after %s", buildWithin))
	defer cancel()
	shipped := []string{"-ldflags", "-s -w -X main.version=" + version}
	files := map[string]string{}
	group, ctx := errgroup.WithContext(ctx)
	for name, args := range map[string][]string{
		nodeProgram:        slices.Concat([]string{"build", "-tags", "grpcnotrace", "-gcflags=all=-l"}, shipped, []string{"./nodeplugin"}),
		provisionerProgram: slices.Concat([]string{"build"}, shipped, []string{"./provisioner"}),
		registrarProgram:   {"build", "-C", "internal/testbed", "-ldflags", "-s -w", "./registrar"},
	} {
		path := filepath.Join(dir, name)
		files[name] = path
		group.Go(func() error { return host.Build(ctx, path, args...) })
	}
	return files, group.Wait()
}

// sizes adds the sizes of the programs and of their images, in MB.
func sizes(ctx context.Context, host *testbed.Host, files map[string]string, into samples) error {
	version, err := host.Version()
	if err != nil {
		return err
	}
	images, err := host.Images(ctx, version)
	if err != nil {
		return err
	}
	measured := slices.Clone(images)
	for _, name := range []string{nodeProgram, provisionerProgram} {
		measured = append(measured, files[name])
	}
	for _, path := range measured {
		info, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("measure: %w", err)
		}
		into.add("footprint/size/"+filepath.Base(path), float64(info.Size())/mega)
	}
	return nil
}

// samplePrefix begins the lines of a machine's output that are a sample.
const samplePrefix = "@sample "

// console takes the samples out of a machine's output and logs the rest.
type console struct {
	log     func(format string, args ...any)
	samples samples
	partial string // of a line
}

// Write never fails.
func (c *console) Write(data []byte) (int, error) {
	c.partial += string(data)
	for {
		line, rest, found := strings.Cut(c.partial, "\n")
		if !found {
			return len(data), nil
		}
		c.partial = rest
		text, isSample := strings.CutPrefix(line, samplePrefix)
		var s sample
		if isSample && json.Unmarshal([]byte(text), &s) == nil {
			c.samples.add(s.Name, s.Values...)
		} else {
			c.log("%s", line)
		}
	}
}
