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

// MaxMountOptions is how long all mount options of a volume may be together, in bytes:
// the page that mount(2) takes.
const MaxMountOptions = 4096

func tooLong(length int) error {
	return fmt.Errorf("%d bytes of mount options are more than mount(2) takes, %d", length, MaxMountOptions)
}

// CheckMountOption says what is wrong with one mount option of a StorageClass or
// PersistentVolume, if anything. A string that joins several options with commas
// is checked option by option, as mount(8) reads it.
func CheckMountOption(option string) error {
	if len(option) > MaxMountOptions {
		return tooLong(len(option))
	}
	var errs []error
	for _, single := range strings.Split(option, ",") {
		if err := checkOption(single); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// ParseMountOptions reads mount options from a secret: one string, separated by
// commas, with white space around each option allowed; an empty one is a fault. Its
// error names every fault in one line, by the option's position. Of what is in the
// secret it shows nothing but that an option has one of the keys that are refused.
func ParseMountOptions(value string) ([]string, error) {
	if len(value) > MaxMountOptions {
		return nil, tooLong(len(value))
	}
	var options, faults []string
	for i, option := range strings.Split(value, ",") {
		option = strings.TrimSpace(option)
		err := checkOption(option)
		if err != nil && strings.HasPrefix(strings.ToLower(option), refusedOptionPrefix) {
			err = refusal(refusedOptionPrefix) // what follows could be anything
		}
		if err != nil {
			faults = append(faults, fmt.Sprintf("option %d %v", i+1, err))
			continue
		}
		options = append(options, option)
	}
	if len(faults) > 0 {
		return nil, errors.New(strings.Join(faults, "; "))
	}
	return options, nil
}

// checkOption says what is wrong with one option. All that its error shows of the
// option is a key that is refused.
func checkOption(option string) error {
	key, _, _ := strings.Cut(option, "=")
	key = strings.ToLower(key)
	switch {
	case option == "":
		return errors.New("must not be empty")
	case strings.ContainsFunc(option, unicode.IsControl), strings.ContainsFunc(option, unicode.IsSpace), strings.Contains(option, `"`):
		return errors.New("must not contain white space, a control character or a quote")
	case slices.Contains(refusedOptions, key), strings.HasPrefix(key, refusedOptionPrefix):
		return refusal(key)
	}
	return nil
}

func refusal(key string) error {
	return fmt.Errorf("%q is refused: it redirects a mount or widens what it allows", key)
}
