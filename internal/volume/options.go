package volume

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// refusedOptions redirect a mount to another server or place, or widen what it
// allows. Neither a class nor a hand-made volume may name them.
var refusedOptions = []string{
	"addr", "bind", "dev", "loop", "mountaddr", "mounthost", "move", "rbind", "remount", "suid",
}

// refusedOptionPrefix begins the options that mount(8) itself carries out, such
// as X-mount.subdir and X-mount.owner: they redirect a mount or change what it shows.
const refusedOptionPrefix = "x-mount."

// CheckMountOption says what is wrong with one mount option of a StorageClass or
// PersistentVolume, if anything. A string that joins several options with commas
// is checked option by option, as mount(8) reads it.
func CheckMountOption(option string) error {
	var errs []error
	for _, single := range strings.Split(option, ",") {
		key, _, _ := strings.Cut(single, "=")
		key = strings.ToLower(key)
		switch {
		case single == "":
			errs = append(errs, errors.New("must not be empty"))
		case strings.ContainsFunc(single, unicode.IsControl), strings.ContainsFunc(single, unicode.IsSpace), strings.Contains(single, `"`):
			errs = append(errs, errors.New("must not contain white space, a control character or a quote"))
		case slices.Contains(refusedOptions, key), strings.HasPrefix(key, refusedOptionPrefix):
			errs = append(errs, fmt.Errorf("%q is refused: it redirects a mount or widens what it allows", key))
		}
	}
	return errors.Join(errs...)
}
