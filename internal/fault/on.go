//go:build faults

package fault

import (
	"os"
	"syscall"
)

// helperArgument is the first argument of a helper process; see package helper.
const helperArgument = "share-helper"

// Point ends the program here if the test asks for it; see the package.
func Point(name string) {
	if os.Getenv("SHAREVOL_FAULT") != name {
		return
	}
	marker, err := os.OpenFile(os.Getenv("SHAREVOL_FAULT_MARKER"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return // it has been used
	}
	_ = marker.Close()
	if len(os.Args) > 1 && os.Args[1] == helperArgument {
		_ = syscall.Kill(os.Getppid(), syscall.SIGKILL)
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
