//go:build !faults

package fault

// Point does nothing in this build.
func Point(string) {}

// Environment is empty in this build.
func Environment() []string { return nil }
