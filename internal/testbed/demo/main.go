// Command demo shows sharevol's main job on a real cluster that it boots on this
// machine: a claim gets a directory on an NFS server, a pod writes into it, and
// the directory goes with the claim. It exits 0 only if it saw all of that.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"sharevol.dev/sharevol/internal/testbed"
	"sharevol.dev/sharevol/internal/testbed/scene"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	run := prepare
	if testbed.InMachine() {
		run = play
	}
	code, err := run(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		code = 1
	}
	os.Exit(code)
}

const intro = `sharevol demo: a whole Kubernetes node and an NFS server, in a user-mode kernel on this machine.
What it makes is kept in the folder .testbed, which may be deleted, and in Go's caches.
The first run builds Kubernetes, etcd, a root file system and sharevol's images: some 10 minutes
on 2 cores. Later runs take about 2.

`

// prepare makes what the demo needs and runs this program again in a machine.
func prepare(ctx context.Context) (int, error) {
	fmt.Print(intro)
	host, err := testbed.NewHost(testbed.NewProgress(os.Stdout))
	if err != nil {
		return 0, err
	}
	return host.RunInMachine(ctx, scene.Run(host, "demo"))
}
