package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"sharevol.dev/sharevol/internal/testbed"
)

const (
	logTail  = 25   // lines of each log
	lineMax  = 400  // characters of each line
	tailRead = 64e3 // bytes that are looked at from the end of a log
)

// noise are lines that the components write in a healthy cluster too: klog's informational ones.
var noise = regexp.MustCompile(`^I\d{4} `)

// DumpLogs prints what helps to find out why a test failed: pods, events, the logs of sharevol's pods,
// and the ends of the components' logs. It does its best; the error is only that of ctx or of w.
func (c *Cluster) DumpLogs(ctx context.Context, w io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, args := range []string{
		"get nodes,pods,pvc,pv -A -o wide",
		"get events -A --sort-by=.lastTimestamp",
		"describe pods -A",
	} {
		text, err := c.Kubectl(ctx, append(strings.Fields(args), "--request-timeout=10s")...)
		if err := section(w, "kubectl "+args, text, err, 8*logTail); err != nil {
			return err
		}
	}
	pods, err := c.Kubectl(ctx, "get", "pods", "-n", SystemNamespace, "-o", "name", "--request-timeout=10s")
	if err != nil {
		pods = ""
	}
	for pod := range strings.FieldsSeq(pods) {
		for _, previous := range []string{"false", "true"} {
			text, err := c.Kubectl(ctx, "logs", "-n", SystemNamespace, pod, "--all-containers", "--prefix",
				"--tail=80", "--previous="+previous, "--request-timeout=10s")
			if previous == "true" && err != nil {
				continue // it was never restarted
			}
			if err := section(w, "logs of "+pod, text, err, 4*logTail); err != nil {
				return err
			}
		}
	}
	for _, it := range all() {
		text, err := tail(filepath.Join(testbed.GuestLogs, it.name+".log"))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was never started
		}
		if err := section(w, it.name, text, err, logTail); err != nil {
			return err
		}
	}
	return nil
}

// section prints the last lines of a text under a title.
func section(w io.Writer, title, text string, failed error, most int) error {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(lines) > most {
		lines = lines[len(lines)-most:]
	}
	if _, err := fmt.Fprintf(w, "\n---- %s\n", title); err != nil {
		return err
	}
	if failed != nil {
		lines = append(lines, failed.Error())
	}
	for _, line := range lines {
		if len(line) > lineMax {
			line = line[:lineMax] + " ..."
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

// tail returns the interesting lines of the end of a log file.
func tail(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Size() > tailRead {
		if _, err := file.Seek(-tailRead, io.SeekEnd); err != nil {
			return "", err
		}
	}
	data, err := io.ReadAll(file)
	var lines []string
	for line := range strings.SplitSeq(string(data), "\n") {
		if line != "" && !noise.MatchString(line) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n"), err
}
