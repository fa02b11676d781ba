//go:build faults

package fault

import (
	"os"
	"syscall"
)

// helperArgument is the first argument of a helper process; see package helper.
const helperArgument = "share-helper"

// The variables that name the point, and the file that says it was used.
const point, marker = "SHAREVOL_FAULT", "SHAREVOL_FAULT_MARKER"

// Environment is what a process of the program needs of this one's, to come to its points.
func Environment() []string {
	return []string{point + "=" + os.Getenv(point), marker + "=" + os.Getenv(marker)}
}

// Point ends the program here if the test asks for it; see the package.
func Point(name string) {
	if os.Getenv(point) != name {
		return
	}
	used, err := os.OpenFile(os.Getenv(marker), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return // it has been used
	}
	_ = used.Close()
	if len(os.Args) > 1 && os.Args[1] == helperArgument {
		_ = syscall.Kill(os.Getppid(), syscall.SIGKILL)
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
