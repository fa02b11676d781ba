package dirs

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/fault"
)

// unfinishedMode is what a volume directory is made with, before it gets its own
// mode in the last step. Nobody would choose it, so that an empty directory that
// has it after a crash is known to be unfinished.
const unfinishedMode = 0o500

// isUnfinished says whether the directory is as mkdir left it.
func (f *found) isUnfinished() (bool, error) {
	if f.stat.perm()&^unix.S_ISGID != unfinishedMode {
		return false, nil
	}
	empty, err := isEmpty(f.file)
	return empty, stepError("read", f.shown, err)
}

// finish gives the directory its owner, and then its mode.
func (n *creation) finish(ctx context.Context, dir *found) error {
	file, err := openAt(dir.file, ".", openDirFlags, dir.shown)
	if err != nil {
		return stepError("open", dir.shown, err)
	}
	defer func() { _ = file.Close() }()
	if other := func(want int64, is uint32) bool { return want >= 0 && want != int64(is) }; other(n.UID, dir.stat.uid) || other(n.GID, dir.stat.gid) {
		err := n.change(ctx, func() error { return unix.Fchown(int(file.Fd()), int(n.UID), int(n.GID)) })
		if err != nil {
			return fmt.Errorf("make %s the owner: %w", n.ownership(), stepError("chown", dir.shown, err))
		}
	}
	mode := n.Mode
	if mode == 0 {
		mode = 0o777&^umask() | dir.stat.perm()&unix.S_ISGID
	}
	if err := n.change(ctx, func() error { return unix.Fchmod(int(file.Fd()), mode) }); err != nil {
		return stepError("chmod", dir.shown, err)
	}
	fault.Point("finished")
	return nil
}

// ownership is what was wanted as chown(1) takes it.
func (n *creation) ownership() string {
	part := func(id int64) string {
		if id < 0 {
			return ""
		}
		return strconv.FormatInt(id, 10)
	}
	return part(n.UID) + ":" + part(n.GID)
}

// umask returns the umask of this process without changing it for a moment.
func umask() uint32 {
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "Umask:"); ok {
			if mask, err := strconv.ParseUint(strings.TrimSpace(value), 8, 32); err == nil {
				return uint32(mask)
			}
		}
	}
	return 0o022 // before Linux 4.7
}
