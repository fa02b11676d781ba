package machine

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"sharevol.dev/sharevol/internal/testbed/guest"
)

// guestArgs are the arguments of the program in the machine, which Guest reads.
func guestArgs(options Options) []string {
	return []string{fmt.Sprintf("-short=%t", options.Short), "-areas=" + strings.Join(options.Areas, ",")}
}

// Guest is what the program does in the machine: it measures, and prints the samples for Run. It returns the
// exit status.
func Guest(args []string) int {
	if err := measure(context.Background(), args); err != nil {
		fmt.Println("bench:", err) // beside the samples, in order
		return 1
	}
	return 0
}

// lab is what the measurements share.
type lab struct {
	short   bool
	servers int
	cluster *guest.Cluster // nil until somebody needs it
	printed sync.Mutex
}

func measure(ctx context.Context, args []string) (err error) {
	l := &lab{}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.BoolVar(&l.short, "short", false, "")
	areas := flags.String("areas", "", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	limit := within(Options{Short: l.short}) - 30*time.Second // before the machine's own end, so that it can say why
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done after %s", limit))
	defer cancel()
	defer func() {
		if l.cluster == nil {
			return
		}
		if err != nil {
			_ = l.cluster.DumpLogs(context.WithoutCancel(ctx), os.Stdout) // what is printed helps, if it can be
		}
		err = errors.Join(err, l.cluster.Alive(), l.cluster.Stop())
	}()
	for area := range strings.SplitSeq(*areas, ",") {
		start := time.Now()
		run := map[string]func(context.Context) error{Publish: l.publish, Remove: l.remove, Footprint: l.footprint}[area]
		if run == nil {
			return fmt.Errorf("no area %q", area)
		}
		if err := run(ctx); err != nil {
			return fmt.Errorf("%s: %w", area, err)
		}
		l.note("%s: done after %s", area, time.Since(start).Round(time.Second))
	}
	return nil
}

// pick returns the number for a long or for a short bench.
func (l *lab) pick(long, short int) int {
	if l.short {
		return short
	}
	return long
}

// runs is how often each measurement is made, in turn with its baseline.
func (l *lab) runs() int { return l.pick(5, 1) }

func (l *lab) note(format string, args ...any) {
	l.printed.Lock()
	defer l.printed.Unlock()
	fmt.Printf(format+"\n", args...)
}

// sample prints what one run measured.
func (l *lab) sample(name string, values ...float64) error {
	text, err := json.Marshal(sample{Name: name, Values: values})
	if err != nil {
		return err
	}
	l.note("%s%s", samplePrefix, text)
	return nil
}

// server starts one more NFS server, which runs until the machine ends.
func (l *lab) server(ctx context.Context) (*guest.NFSServer, error) {
	l.servers++
	return guest.StartNFSServer(ctx, l.servers)
}

// controlPlane returns the API server and its controllers, started by the first who needs them: what is
// measured before has the machine to itself.
func (l *lab) controlPlane(ctx context.Context) (*guest.Cluster, error) {
	if l.cluster != nil {
		return l.cluster, nil
	}
	var err error
	l.cluster, err = guest.StartControlPlane(ctx, l.note)
	return l.cluster, err
}

// milliseconds is how all times are given.
func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
