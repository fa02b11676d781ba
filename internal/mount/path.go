package mount

import (
	"fmt"
	"path/filepath"
)

// canonical returns target as mountinfo names it: absolute, with the links in
// its parents resolved. The last component is not looked at: it may be a mount
// whose server is dead.
func canonical(target string) (string, error) {
	if !filepath.IsAbs(target) || filepath.Clean(target) != target || target == "/" {
		return "", fmt.Errorf("mount target %q must be a clean absolute path below /", target)
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(target))
	if err != nil {
		return "", fmt.Errorf("mount target %q: %w", target, err)
	}
	return filepath.Join(parent, filepath.Base(target)), nil
}
