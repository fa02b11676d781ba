package dirs

import (
	"fmt"
	"os"
)

func (t *tree) stopped() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ended
}

// fail keeps what can't be removed. An end of the whole call ends the removal.
func (t *tree) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case isEnded(err):
		if t.ended == nil {
			t.ended = err
		}
	case len(t.failed) < maxShown:
		t.failed = append(t.failed, err)
	default:
		t.more++
	}
}

// failStep is fail of a step on the entry name of dir, or on dir itself, whose owner
// it tells.
func (t *tree) failStep(op, shown string, dir *os.File, name string, err error) {
	err = stepError(op, shown, err)
	if isDenied(err) {
		err = fmt.Errorf("%w (%s)", err, ownersOf(dir, name))
	}
	t.fail(err)
}

func ownersOf(dir *os.File, name string) string {
	above, err := statFile(dir, cached)
	if err != nil {
		return "its owner can't be read"
	}
	in := fmt.Sprintf("of uid %d with mode %#o", above.uid, above.perm())
	if name == "" {
		return in
	}
	if entry, err := statAt(dir, name, cached); err == nil {
		return fmt.Sprintf("of uid %d, in a directory %s", entry.uid, in)
	}
	return "in a directory " + in
}

// failure tells what could not be removed.
func (t *tree) failure() error {
	var err error
	for i, next := range t.failed {
		if i == 0 {
			err = next
		} else {
			err = fmt.Errorf("%w; %w", err, next)
		}
	}
	if t.more > 0 {
		err = fmt.Errorf("%w; and %d more", err, t.more)
	}
	return err
}
