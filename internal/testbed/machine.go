package testbed

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Files in a share by which the host and the guest's init talk to each other.
const (
	planFile   = "plan.json"   // what to run, written by the host
	statusFile = "exit-status" // how it ended, written by the guest
)

// GuestShare is where the guest sees the folder that it shares with the host.
const GuestShare = "/testbed"

// Options say what a machine is and runs.
type Options struct {
	MemoryMiB int       // 3584 when zero: fits into /dev/shm of a host with 8 GB, which gives only what is touched
	Share     string    // a host folder, seen in the guest at GuestShare, read and write
	Command   []string  // what runs in the guest, as root; paths are the guest's
	Env       []string  // KEY=VALUE, added to a minimal environment
	Output    io.Writer // gets the console: the command's output, standard error included
}

// plan is what the guest's init reads; its form is repeated there.
type plan struct {
	Command []string `json:"command"`
	Env     []string `json:"env"`
}

// Boot boots a user-mode kernel, runs the command in it and returns the command's exit status, or 128
// plus the number of the signal that ended it. The machine ends with its command, and at once when ctx
// does. Whatever it did to its root file system is gone afterwards. A Share serves one Boot.
func (h *Host) Boot(ctx context.Context, opts Options) (exitCode int, err error) {
	rootfs, err := h.RootFS(ctx)
	if err != nil {
		return 0, err
	}
	initProgram, err := h.program(ctx, "guestinit")
	if err != nil {
		return 0, err
	}
	if err := linkOrCopy(initProgram, filepath.Join(opts.Share, "guestinit")); err != nil {
		return 0, err
	}
	todo, err := json.Marshal(plan{Command: opts.Command, Env: opts.Env})
	if err != nil {
		return 0, fmt.Errorf("encode the guest's plan: %w", err)
	}
	if err := os.WriteFile(filepath.Join(opts.Share, planFile), todo, 0o644); err != nil {
		return 0, fmt.Errorf("write the guest's plan: %w", err)
	}
	uml, err := os.MkdirTemp(opts.Share, "uml-") // the kernel's control socket, else in ~/.uml
	if err != nil {
		return 0, fmt.Errorf("make the machine's folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(uml)) }()
	if opts.MemoryMiB == 0 {
		opts.MemoryMiB = 3584
	}
	preload, err := h.xstateFix(ctx)
	if err != nil {
		return 0, err
	}
	if err := runKernel(ctx, rootfs.Image, uml, preload, opts); err != nil {
		return 0, err
	}
	return readStatus(opts.Share)
}

func runKernel(ctx context.Context, image, uml, preload string, opts Options) error {
	cmd := command(ctx, "linux.uml", "mem="+strconv.Itoa(opts.MemoryMiB)+"M",
		"ubd0r="+image, "root=/dev/ubda", "rootfstype=ext4", "ro", "init=/sbin/init", "share="+opts.Share,
		"uml_dir="+uml, "con=null", "con0=fd:0,fd:1", "quiet", "loglevel=1")
	cmd.Env = append(os.Environ(), "TMPDIR="+memoryFolder(uml, opts.MemoryMiB))
	if preload != "" {
		cmd.Env = append(cmd.Env, "LD_PRELOAD="+preload)
	}
	cmd.Stdout = &console{out: opts.Output}
	release, err := startOnOneProcessor(cmd)
	if err != nil {
		return fmt.Errorf("start the user-mode kernel: %w", err)
	}
	defer release()
	err = waitGuarded(cmd)
	if ctx.Err() != nil {
		return fmt.Errorf("the machine was ended: %w", context.Cause(ctx))
	}
	var exit *exec.ExitError
	if errors.Is(err, exec.ErrWaitDelay) { // a process of the machine's outlived it
		err = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		if errors.Is(err, syscall.ESRCH) {
			err = nil
		}
	}
	if err != nil && !errors.As(err, &exit) { // its own exit status says nothing about the command
		return fmt.Errorf("run the user-mode kernel: %w", err)
	}
	return nil
}

// memoryFolder returns where the machine's memory file goes, which it unlinks at once: a tmpfs that has
// the room, as a file on disk is written back all the time.
func memoryFolder(fallback string, needMiB int) string {
	const shm, tmpfsMagic = "/dev/shm", 0x01021994
	var fs syscall.Statfs_t
	if syscall.Statfs(shm, &fs) == nil && fs.Type == tmpfsMagic && fs.Bavail*uint64(fs.Bsize)>>20 > uint64(needMiB) {
		return shm
	}
	return fallback
}

func readStatus(share string) (int, error) {
	data, err := os.ReadFile(filepath.Join(share, statusFile))
	if errors.Is(err, os.ErrNotExist) {
		return 0, errors.New("the machine went down before its command ended")
	}
	if err != nil {
		return 0, fmt.Errorf("read how the guest's command ended: %w", err)
	}
	status, message, _ := strings.Cut(string(data), "\n")
	code, err := strconv.Atoi(status)
	if err != nil {
		return 0, fmt.Errorf("read how the guest's command ended: %w", err)
	}
	if message != "" {
		return 0, fmt.Errorf("set up the guest: %s", message)
	}
	return code, nil
}

// console takes away the carriage returns that the guest's terminal adds.
type console struct{ out io.Writer }

func (c *console) Write(data []byte) (int, error) {
	if c.out == nil {
		return len(data), nil
	}
	if _, err := c.out.Write(bytes.ReplaceAll(data, []byte("\r"), nil)); err != nil {
		return 0, err
	}
	return len(data), nil
}

// linkOrCopy makes to another name of the file from, or a copy where the two are on different file systems.
func linkOrCopy(from, to string) error {
	if err := os.Link(from, to); err == nil {
		return nil
	}
	source, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copy %q: %w", from, err)
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return fmt.Errorf("copy %q: %w", from, err)
	}
	_, err = io.Copy(target, source)
	if err := errors.Join(err, target.Close()); err != nil {
		return fmt.Errorf("copy %q: %w", from, err)
	}
	return nil
}
