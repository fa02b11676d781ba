package dirs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

var (
	// ErrUntouched says that the call ended before it changed anything on the
	// share, or undid what it had changed. (.sharevol itself does not count.)
	ErrUntouched = errors.New("nothing was changed on the share")
	// ErrConflict says that the directory, or one above it, belongs to another
	// volume or is somebody's data.
	ErrConflict = errors.New("the directory is somebody else's")
	// ErrTaken says that nothing is left of the volume that was to go, and that its
	// place is recorded for another one, which can only have come after the end of it.
	// It matches ErrConflict too.
	ErrTaken = errors.New("another volume has taken the place")
	// ErrOtherShare says that the share has another id than it should have, or none
	// where there should be one.
	ErrOtherShare = errors.New("another share is in its place")
	// ErrFenced says that Options.Fence ended the call.
	ErrFenced = errors.New("the lease has run out")
)

// errMoved says that what a step was about to work on has just moved: look again.
var errMoved = errors.New("it changes while it is worked on")

// kindError is an error that matches a sentinel too, with its own text alone.
type kindError struct {
	error
	kind error
}

func (e *kindError) Unwrap() []error { return []error{e.error, e.kind} }

func conflictf(format string, args ...any) error {
	return &kindError{error: fmt.Errorf(format, args...), kind: ErrConflict}
}

func untouched(err error) error {
	if err == nil || errors.Is(err, ErrUntouched) {
		return err
	}
	return &kindError{error: err, kind: ErrUntouched}
}

func otherShare(want, has string) error {
	text := "the share has no id"
	if has != "" {
		text = "the share has the id " + has
	}
	return &kindError{
		error: fmt.Errorf("%s, the volumes of this cluster on it were made when it had %s: another file system seems to be exported in its place", text, want),
		kind:  ErrOtherShare,
	}
}

// definite are the errors with which a server says that it did not do the step.
// After any other (EIO, ETIMEDOUT, ESTALE, EINTR...) it may have, or still may.
var definite = []unix.Errno{
	unix.EACCES, unix.EBUSY, unix.EDQUOT, unix.EEXIST, unix.EFBIG, unix.EINVAL, unix.EISDIR, unix.ELOOP,
	unix.EMFILE, unix.EMLINK, unix.ENAMETOOLONG, unix.ENFILE, unix.ENOENT, unix.ENOMEM, unix.ENOSPC, unix.ENOSYS,
	unix.ENOTDIR, unix.ENOTEMPTY, unix.EOPNOTSUPP, unix.EPERM, unix.EROFS, unix.EXDEV,
}

func isDefinite(err error) bool {
	var errno unix.Errno
	switch {
	case isEnded(err):
		return false
	case errors.Is(err, ErrConflict), errors.Is(err, errMoved):
		return true
	}
	return errors.As(err, &errno) && slices.Contains(definite, errno)
}

func isDenied(err error) bool {
	return !isEnded(err) && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM))
}

// isBarred says that nothing of ours can be where a path leads, or can't be reached:
// it is somebody else's from there on.
func isBarred(err error) bool { return errors.Is(err, ErrConflict) || isDenied(err) }

func isNoDirectory(err error) bool { return errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) }
func isNotEmpty(err error) bool    { return errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) }

// isEnded says that the call is to stop, which is no fault of the share.
func isEnded(err error) bool {
	return errors.Is(err, ErrFenced) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// stepError says what failed where, and what can be done about it. What is no bare
// answer of the system has its text already.
func stepError(op, shown string, err error) error {
	errno, bare := err.(unix.Errno)
	if !bare {
		return err
	}
	failed := &os.PathError{Op: op, Path: shown, Err: errno}
	switch {
	case errno == unix.ENOSPC:
		return fmt.Errorf("%w: there is no space left on the share", failed)
	case errno == unix.EDQUOT:
		return fmt.Errorf("%w: the quota on the share is used up", failed)
	case errno == unix.EROFS:
		return fmt.Errorf("%w: the share is exported or mounted read-only", failed)
	case isDenied(errno):
		return fmt.Errorf("%w: the provisioner acts as uid %d, which an export with root_squash or all_squash makes another one", failed, os.Geteuid())
	}
	return failed
}

// openError says plainly what O_DIRECTORY|O_NOFOLLOW refuses.
func openError(shown string, err error) error {
	if isNoDirectory(err) {
		return conflictf("%s is a link or a file, not a directory: left alone", shown)
	}
	return stepError("open", shown, err)
}
