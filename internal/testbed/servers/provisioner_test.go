package servers

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"sharevol.dev/sharevol/internal/testbed"
	"sharevol.dev/sharevol/internal/testbed/guest"
)

const (
	httpAddress = "127.0.0.1:29801"
	// stopWithin is what the provisioner promises for SIGTERM.
	stopWithin = 10 * time.Second
	logTail    = 6000 // bytes
)

// provisioner is the program, running.
type provisioner struct {
	cmd    *exec.Cmd
	log    string
	exited chan error // of Wait, once
	ended  bool
}

// provisioner starts the program, with more arguments, and waits until it serves. It
// runs until stop, or else is killed with the test.
func (w *world) provisioner(t *testing.T, args ...string) *provisioner {
	t.Helper()
	log, err := os.CreateTemp(testbed.GuestLogs, filepath.Base(t.Name())+"-*.log")
	check(t, err)
	defer log.Close() // the child has its own
	p := &provisioner{
		log: log.Name(), exited: make(chan error, 1),
		cmd: exec.Command(filepath.Join(testbed.GuestShare, program), append(args,
			"--kubeconfig="+guest.KubeconfigPath, "--leader-elect=false", "--http-address="+httpAddress, "-v=2")...),
	}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	check(t, p.cmd.Start())
	go func() { p.exited <- p.cmd.Wait() }()
	t.Cleanup(func() {
		if t.Failed() {
			p.showLog(t)
		}
		if !p.ended {
			_ = p.cmd.Process.Kill() // the test has failed before it could be stopped
			<-p.exited
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	check(t, guest.WaitFor(ctx, "the provisioner to be ready", 100*time.Millisecond, func(ctx context.Context) (bool, string, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+httpAddress+"/readyz", nil)
		if err != nil {
			return false, "", err
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			return false, err.Error(), nil
		}
		_ = answer.Body.Close() // nothing of it is read
		return answer.StatusCode == http.StatusOK, answer.Status, nil
	}))
	return p
}

func (p *provisioner) pid() int { return p.cmd.Process.Pid }

// stop stops the program as kubelet does. It must end in time and in order, and
// leave neither a process nor a mount.
func (p *provisioner) stop(t *testing.T) {
	t.Helper()
	start := time.Now()
	check(t, p.cmd.Process.Signal(syscall.SIGTERM))
	var err error
	select {
	case err = <-p.exited:
	case <-time.After(stopWithin + 5*time.Second):
		err = fmt.Errorf("still running")
		p.showLog(t)
		_ = p.cmd.Process.Kill() // so that the tests after this one have a chance
		<-p.exited
	}
	p.ended = true
	took := time.Since(start)
	t.Logf("%s: stopped in %.1fs", uptime(), took.Seconds())
	if err != nil || took > stopWithin {
		t.Errorf("SIGTERM: %v after %s", err, took)
	}
	now, err := takeCensus(p.pid())
	check(t, err)
	if now.mounts > 0 || len(now.mounting) > 0 || len(now.helpers) > 0 {
		t.Errorf("it left %s", now)
	}
}

// showLog prints the end of the program's log.
func (p *provisioner) showLog(t *testing.T) {
	log, err := os.Open(p.log)
	if err != nil {
		t.Error(err)
		return
	}
	defer log.Close()
	if info, err := log.Stat(); err == nil && info.Size() > logTail {
		_, _ = log.Seek(-logTail, io.SeekEnd) // else it is shown from its beginning
	}
	data, err := io.ReadAll(log)
	t.Logf("the provisioner's log ends (%v):\n%s", err, bytes.TrimSpace(data))
}
