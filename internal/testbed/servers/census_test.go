package servers

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// census counts what a dead server could make pile up.
type census struct {
	at       string   // uptime
	helpers  []string // the provisioner's children and further descendants, and orphans of the same program
	mounting []string // every mount, umount and their NFS helpers, whoever's
	stuck    []string // user processes in uninterruptible sleep
	threads  int      // of the provisioner and its descendants
	mounts   int      // of NFS, in the machine's and the provisioner's mount table
	shares   int      // NFS superblocks that the kernel keeps, mounted anywhere or nowhere
}

func (c census) String() string {
	return fmt.Sprintf("%s: %d helpers %q, %d mounting %q, %d stuck %q, %d threads, %d mounts, %d superblocks",
		c.at, len(c.helpers), c.helpers, len(c.mounting), c.mounting, len(c.stuck), c.stuck, c.threads, c.mounts, c.shares)
}

// takeCensus counts what there is of the provisioner with the given process id,
// which may have ended.
func takeCensus(provisioner int) (census, error) {
	c := census{at: uptime()}
	tasks, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return c, err
	}
	parents, all := map[int]int{}, map[int]task{}
	for _, dir := range tasks {
		if task, ok := readTask(dir); ok {
			all[task.pid], parents[task.pid] = task, task.parent
		}
	}
	for pid, task := range all {
		descends := false
		for up := pid; up > 1; up = parents[up] {
			descends = descends || up == provisioner
		}
		name := fmt.Sprintf("%d %s", pid, task.name)
		switch {
		case strings.HasPrefix(task.name, "mount") || strings.HasPrefix(task.name, "umount"):
			c.mounting = append(c.mounting, name)
		case pid != provisioner && (descends || task.program == program):
			c.helpers = append(c.helpers, name)
		}
		if descends || task.program == program {
			c.threads += task.threads
		}
		if task.state == "D" && task.program != "" {
			c.stuck = append(c.stuck, name)
		}
	}
	slices.Sort(c.helpers)
	c.mounts = max(countMounts("self"), countMounts(strconv.Itoa(provisioner)))
	volumes, err := os.ReadFile("/proc/net/nfsfs/volumes")
	c.shares = max(0, strings.Count(string(volumes), "\n")-1) // less its heading
	return c, err
}

// task is a process, from its folder in /proc.
type task struct {
	pid, parent, threads int
	name, program, state string // program is the executable's base name, "" for one of the kernel's
}

// readTask returns false where the process has ended meanwhile.
func readTask(dir string) (task, bool) {
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return task{}, false
	}
	// PID (NAME) STATE PPID ... with the number of threads as field 20; see proc(5).
	head, rest, _ := strings.Cut(string(stat), " (")
	end := strings.LastIndex(rest, ") ")
	fields := strings.Fields(rest[end+2:])
	t := task{name: rest[:end], state: fields[0]}
	t.pid, _ = strconv.Atoi(head) // the kernel writes numbers
	t.parent, _ = strconv.Atoi(fields[1])
	t.threads, _ = strconv.Atoi(fields[17])
	if link, err := os.Readlink(filepath.Join(dir, "exe")); err == nil {
		t.program = filepath.Base(link)
	}
	return t, t.state != "Z"
}

// countMounts counts NFS mounts as a process sees them; none where it has ended.
func countMounts(process string) int {
	table, _ := os.ReadFile(filepath.Join("/proc", process, "mountinfo"))
	return strings.Count(string(table), " - nfs ") + strings.Count(string(table), " - nfs4 ")
}

// watchCensus takes a census every few seconds until the returned function is
// called, which returns the largest figures seen in the first and in the second
// half of the time.
func watchCensus(ctx context.Context, p *provisioner) (end func(*testing.T) (early, late census)) {
	ctx, cancel := context.WithCancel(ctx)
	var all []census
	var failed error
	var running sync.WaitGroup
	running.Go(func() {
		for failed == nil {
			var now census
			now, failed = takeCensus(p.pid())
			all = append(all, now)
			select {
			case <-ctx.Done():
				return
			case <-time.After(2 * time.Second):
			}
		}
	})
	return func(t *testing.T) (early, late census) {
		t.Helper()
		cancel()
		running.Wait()
		check(t, failed)
		return most(all[:len(all)/2]), most(all[len(all)/2:])
	}
}

// most returns the largest of each figure.
func most(all []census) census {
	var m census
	for _, c := range all {
		m.at = c.at
		m.threads, m.mounts, m.shares = max(m.threads, c.threads), max(m.mounts, c.mounts), max(m.shares, c.shares)
		for to, from := range map[*[]string][]string{&m.helpers: c.helpers, &m.mounting: c.mounting, &m.stuck: c.stuck} {
			if len(from) > len(*to) {
				*to = from
			}
		}
	}
	return m
}

// nothingStuck sees that no user process sleeps for good where no signal reaches it,
// and that no NFS is mounted.
func nothingStuck(t *testing.T) {
	t.Helper()
	var now census
	for range 20 { // one that only passes through is fine
		var err error
		now, err = takeCensus(-1)
		check(t, err)
		if len(now.stuck) == 0 && now.mounts == 0 && now.shares == 0 {
			return
		}
		time.Sleep(500 * time.Millisecond)
	}
	t.Errorf("left behind: %s", now)
}
