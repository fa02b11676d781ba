package testbed

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// startOnOneProcessor starts cmd, a user-mode kernel, on one of the host's processors. Such a kernel has
// one processor, and hands it to and fro between its own process and the guest's at each system call: across
// two of the host's that takes more than twice as long. Each machine of this host has a
// processor of its own, as far as there are enough, until release is called or this process ends.
func startOnOneProcessor(cmd *exec.Cmd) (release func(), err error) {
	// The thread is what the new process has its processors from.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return nil, fmt.Errorf("find out which processors there are: %w", err)
	}
	processor, release := holdProcessor(&all)
	var one unix.CPUSet
	one.Set(processor)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		release()
		return nil, fmt.Errorf("run on processor %d alone: %w", processor, err)
	}
	err = cmd.Start()
	back := unix.SchedSetaffinity(0, &all)
	if err == nil && back != nil {
		err = errors.Join(back, cmd.Cancel(), cmd.Wait())
	}
	if err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// holdProcessor returns one of some processors that no other machine has, or any if each has a machine. A
// socket without a file tells the others of it, and ends with this process.
func holdProcessor(all *unix.CPUSet) (processor int, release func()) {
	var some []int
	for i := 0; len(some) < all.Count(); i++ {
		if all.IsSet(i) {
			some = append(some, i)
		}
	}
	for _, processor := range some {
		held, err := net.Listen("unix", fmt.Sprintf("@sharevol-testbed-processor-%d", processor))
		if err == nil {
			return processor, func() { _ = held.Close() }
		}
	}
	return some[rand.IntN(len(some))], func() {}
}
