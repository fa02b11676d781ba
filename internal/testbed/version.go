package testbed

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
)

var manifestTag = regexp.MustCompile(`newName: ghcr\.io/sharevol/sharevol-node\n\s*newTag: (\S+)`)

// Version returns sharevol's version as its manifests name it: the tag of the
// images that they install.
func (h *Host) Version() (string, error) {
	path := filepath.Join(h.root, "manifests", "base", "kustomization.yaml")
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("find the version: %w", err)
	}
	match := manifestTag.FindSubmatch(data)
	if match == nil {
		return "", fmt.Errorf("find the version: no tag of sharevol-node's image in %s", path)
	}
	return string(match[1]), nil
}
