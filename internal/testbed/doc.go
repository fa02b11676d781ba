// Package testbed prepares and runs sharevol's real test environment from a plain Debian machine with
// Go: it builds Kubernetes from its Go modules and a root file system from Debian packages, keeps both
// in one git-ignored cache folder, and boots a user-mode kernel on them in which the calling program
// runs again as root, with a kernel NFS server and a whole cluster within reach (package guest).
//
// Nothing of the host is touched: the guest writes to memory and to its own run folder in the cache.
package testbed
