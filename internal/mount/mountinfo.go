package mount

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// consistentReads is how often a changing mount table is read before that is an error.
const consistentReads = 10

// mounts returns the lines of a mountinfo file that want picks, in its order: of the
// mounts on one target the lowest comes first.
//
// mount-utils' parser is not used: one mount with an empty source, anywhere on the
// node, makes it fail for all others.
func mounts(mountInfo string, want func(target string) bool) ([]Mounted, error) {
	data, err := consistent(mountInfo)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", mountInfo, err)
	}
	// A node has hundreds of mounts, and a call reads them several times for one.
	infos, err := mountinfo.GetMountsFromReader(bytes.NewReader(pick(data, want)), func(info *mountinfo.Info) (skip, stop bool) {
		return !want(mountPoint(info.Mountpoint)), false
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", mountInfo, err)
	}
	found := make([]Mounted, 0, len(infos))
	for _, info := range infos {
		device := fmt.Sprintf("%d:%d", info.Major, info.Minor)
		found = append(found, Mounted{mountPoint(info.Mountpoint), Layer{Source: info.Source, FSType: info.FSType, Device: device}})
	}
	return found, nil
}

// mountPoint returns where a mount is. The kernel marks one whose directory is gone
// from the server.
func mountPoint(shown string) string { return strings.TrimSuffix(shown, "//deleted") }

// pick returns the lines that want may pick, in place: those whose mount point is written
// plainly are asked for, those with escapes are all kept.
func pick(data []byte, want func(target string) bool) []byte {
	kept := data[:0]
	for line := range bytes.Lines(data) {
		point := string(fifth(line))
		if point == "" || strings.Contains(point, `\`) || want(mountPoint(point)) {
			kept = append(kept, line...)
		}
	}
	return kept
}

// fifth returns the field of a mountinfo line that is the mount point, nothing if it has none.
func fifth(line []byte) []byte {
	for range 4 {
		_, rest, found := bytes.Cut(line, []byte(" "))
		if !found {
			return nil
		}
		line = rest
	}
	field, _, _ := bytes.Cut(line, []byte(" "))
	return field
}

// consistent returns what a mountinfo file holds at one moment. Before Linux 5.8 one that
// changes while it is read may lack mounts that are there: it is read until the kernel says
// that nothing was mounted or unmounted from before the read to its end. That is one read
// where comparing takes two, and more certain: what two reads lack in the same way shows in
// no comparison.
func consistent(path string) ([]byte, error) {
	t, err := openTable(path)
	if err != nil {
		return nil, err
	}
	defer t.close()
	for attempt := range consistentReads {
		if attempt > 0 {
			time.Sleep(time.Millisecond << min(attempt-1, 4)) // to give those who mount so much time to pause
		}
		data, err := t.read()
		if err != nil {
			return nil, err
		}
		if changed, err := t.changed(); err != nil || !changed {
			return data, err
		}
	}
	return nil, fmt.Errorf("it changed during each of %d reads", consistentReads)
}

// table is an open mountinfo file. It is not an os.File, for which Go's runtime would poll.
type table struct{ fd int }

func openTable(path string) (table, error) {
	fd, err := again(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	return table{fd}, err
}

func (t table) close() { _ = unix.Close(t.fd) } // it was only read

// read reads the table from its beginning.
func (t table) read() ([]byte, error) {
	data := make([]byte, 0, 8<<10)
	for {
		data = slices.Grow(data, 4<<10) // the kernel gives a page at a time
		n, err := again(func() (int, error) { return unix.Pread(t.fd, data[len(data):cap(data)], int64(len(data))) })
		if err != nil || n == 0 {
			return data, err
		}
		data = data[:len(data)+n]
	}
}

// changed reports whether anything was mounted or unmounted since the table was opened or
// this was asked last. The kernel counts the changes of a mount namespace, under the lock
// that its readers take, and marks the file by that (see /proc/mounts in proc(5)).
func (t table) changed() (bool, error) {
	polled := []unix.PollFd{{Fd: int32(t.fd), Events: unix.POLLPRI}}
	_, err := again(func() (int, error) { return unix.Poll(polled, 0) })
	return polled[0].Revents&(unix.POLLPRI|unix.POLLERR) != 0, err
}

// again repeats a system call that a signal has interrupted.
func again(call func() (int, error)) (int, error) {
	for {
		if n, err := call(); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
