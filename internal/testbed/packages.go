package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// hostPackages are the Debian packages that the testbed needs on the host; all else comes from Go
// modules or goes into the guest's root file system.
// The last two are mmdebstrap's own, to check signatures and to work for a user who is not root.
var hostPackages = []string{"user-mode-linux", "mmdebstrap", "genext2fs", "gpg", "uidmap"}

// installTimeout bounds apt-get.
const installTimeout = 15 * time.Minute

// installing lets one goroutine install at a time, as apt-get refuses a second one.
var installing sync.Mutex

// EnsurePackages installs those of the named Debian packages that are missing, as root or by a sudo
// that asks for no password. Without either, the error holds the command to run.
func EnsurePackages(ctx context.Context, progress *Progress, names ...string) error {
	installing.Lock()
	defer installing.Unlock()
	missing, err := missingPackages(ctx, names)
	if err != nil || len(missing) == 0 {
		return err
	}
	install := append([]string{"apt-get", "install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"}, missing...)
	prefix, ok := rootPrefix(ctx)
	if !ok {
		return fmt.Errorf("some Debian packages are missing and this user may not install them; run:\n"+
			"  sudo apt-get update && sudo %s", strings.Join(install, " "))
	}
	// An apt-get that is killed leaves a package half installed: it has a deadline only of its own.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), installTimeout)
	defer cancel()
	progress.Note("installing the Debian packages %s", strings.Join(missing, " "))
	done := progress.Step("apt-get install")
	for _, args := range [][]string{{"apt-get", "update"}, install} {
		args = append(append(append([]string{}, prefix...), "env", "DEBIAN_FRONTEND=noninteractive"), args...)
		if _, err = run(ctx, command(ctx, args[0], args[1:]...)); err != nil {
			err = fmt.Errorf("install Debian packages: %w", err)
			break
		}
	}
	done(err)
	return err
}

func missingPackages(ctx context.Context, names []string) ([]string, error) {
	if _, err := exec.LookPath("dpkg-query"); err != nil {
		return nil, fmt.Errorf("the testbed needs a Debian (or Ubuntu) machine: %w", err)
	}
	var missing []string
	for _, name := range names {
		out, err := command(ctx, "dpkg-query", "-W", "-f", "${db:Status-Status}", name).Output()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) { // a non-zero exit only says that the package is unknown
			return nil, fmt.Errorf("ask for the package %s: %w", name, err)
		}
		if string(out) != "installed" {
			missing = append(missing, name)
		}
	}
	return missing, nil
}

// rootPrefix returns what to put before a command so that it runs as root.
func rootPrefix(ctx context.Context) (prefix []string, ok bool) {
	if os.Geteuid() == 0 {
		return nil, true
	}
	if command(ctx, "sudo", "-n", "true").Run() == nil {
		return []string{"sudo", "-n"}, true
	}
	return nil, false
}
