package fs

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// MaxMountOptions is how long all mount options of a volume may be together, in bytes:
// the page that mount(2) takes.
const MaxMountOptions = 4096

// refusedOptions redirect a mount to another place, or widen what it allows, whatever its
// type. Neither a class nor a hand-made volume may name them.
var refusedOptions = []string{"bind", "dev", "loop", "move", "rbind", "remount", "suid"}

// refusedPrefix begins the options that mount(8) itself carries out, such
// as X-mount.subdir and X-mount.owner: they redirect a mount or change what it shows.
const refusedPrefix = "x-mount."

// OptionRules are what a type says about mount options. The zero value refuses what is
// refused for every type.
type OptionRules struct {
	// Refused are the keys that neither class nor volume may name, in lower case, beside
	// those that are refused for every type.
	Refused []string
	// Always are added to each mount, behind all others: of options that contradict
	// each other the last one counts.
	Always []string
	// Provisioner are added to the provisioner's own mounts, before Always.
	Provisioner []string
}

// Check returns what is wrong with one mount option of a StorageClass or
// PersistentVolume, in one line. A string that joins several options with commas
// is checked option by option, as mount(8) reads it.
func (r OptionRules) Check(option string) error {
	if len(option) > MaxMountOptions {
		return tooLong(len(option))
	}
	var faults []string
	for single := range strings.SplitSeq(option, ",") {
		if err := r.checkOne(single); err != nil {
			faults = append(faults, err.Error())
		}
	}
	return join(faults)
}

// CheckAll returns what is wrong with the options of the list at path.
func (r OptionRules) CheckAll(options []string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, option := range options {
		if err := r.Check(option); err != nil {
			errs = append(errs, field.Invalid(path.Index(i), option, err.Error()))
		}
	}
	return errs
}

// ParseSecret reads mount options from a secret: one string, separated by
// commas, with white space around each option allowed; an empty one is a fault. Its
// error lists every fault in one line, by the option's position. Of what is in the
// secret it shows only the keys of options that are refused.
func (r OptionRules) ParseSecret(value string) ([]string, error) {
	if len(value) > MaxMountOptions {
		return nil, tooLong(len(value))
	}
	var options, faults []string
	for i, option := range strings.Split(value, ",") {
		option = strings.TrimSpace(option)
		err := r.checkOne(option)
		if err != nil && strings.HasPrefix(strings.ToLower(option), refusedPrefix) {
			err = refused(refusedPrefix) // what follows could be anything
		}
		if err != nil {
			faults = append(faults, fmt.Sprintf("option %d %v", i+1, err))
			continue
		}
		options = append(options, option)
	}
	if len(faults) > 0 {
		return nil, join(faults)
	}
	return options, nil
}

// checkOne returns what is wrong with one option. All that its error shows of the
// option is a key that is refused.
func (r OptionRules) checkOne(option string) error {
	key, _, _ := strings.Cut(option, "=")
	key = strings.ToLower(key)
	switch {
	case option == "":
		return errors.New("must not be empty")
	case strings.ContainsFunc(option, unicode.IsControl), strings.ContainsFunc(option, unicode.IsSpace), strings.Contains(option, `"`):
		return errors.New("must not contain white space, a control character or a quote")
	case slices.Contains(refusedOptions, key), slices.Contains(r.Refused, key), strings.HasPrefix(key, refusedPrefix):
		return refused(key)
	}
	return nil
}

func refused(key string) error {
	return fmt.Errorf("%q is refused: it redirects a mount or widens what it allows", key)
}

func tooLong(length int) error {
	return fmt.Errorf("%d bytes of mount options are more than mount(2) takes, %d", length, MaxMountOptions)
}

// join returns the faults as one error, nil for none.
func join(faults []string) error {
	if len(faults) == 0 {
		return nil
	}
	return errors.New(strings.Join(faults, "; "))
}
