package helper_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/share/dirs"
	"sharevol.dev/sharevol/internal/share/helper"
	"sharevol.dev/sharevol/internal/share/operation"
)

// filled returns a T whose fields all have values of their own.
func filled[T any]() T {
	var v T
	n := 0
	fill(reflect.ValueOf(&v).Elem(), &n)
	return v
}

func fill(v reflect.Value, n *int) {
	*n++
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.Unix(int64(*n), 0).UTC()))
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), n)
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	case v.Kind() == reflect.String:
		v.SetString(fmt.Sprintf("<value %d> & é", *n))
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.CanInt():
		v.SetInt(int64(-*n))
	case v.CanUint():
		v.SetUint(uint64(*n))
	default:
		panic("a field that tests can't fill: " + v.Type().String())
	}
}

// Every field of every argument and result comes over.
func TestArgumentsAndResultsCross(t *testing.T) {
	p, _ := open(t, helper.Options{Command: command("echo-helper")})
	crosses[dirs.Create](t, p)
	crosses[dirs.Created](t, p)
	crosses[dirs.Target](t, p)
	crosses[[]dirs.Record](t, p)
	crosses[dirs.Description](t, p)
	crosses[dirs.Survey](t, p)
	crosses[dirs.Surveyed](t, p)
	crosses[string](t, p)
	crosses[operation.None](t, p)
	must(t, p.Probe(ctx))
}

func crosses[T any](t *testing.T, p process) {
	t.Helper()
	there, progressed := filled[T](), false
	var back T
	err := p.Do(dirs.WithProgress(ctx, func() { progressed = true }), "echo", there, &back)
	if err != nil || !reflect.DeepEqual(back, there) || !progressed {
		t.Errorf("%+v came back as %+v, %v; progressed: %v", there, back, err, progressed)
	}
}

// failures are what a helper can fail with.
var failures = []error{
	errors.New("plain\nwith \"quotes\" & <signs>"),
	dirs.ErrUntouched,
	fmt.Errorf("%w: somebody's data", dirs.ErrConflict),
	fmt.Errorf("%w: it is x", dirs.ErrOtherShare),
	fmt.Errorf("%w: long ago", dirs.ErrFenced),
	fmt.Errorf("%w: %w", dirs.ErrUntouched, dirs.ErrFenced),
	errors.Join(errors.New("first"), fmt.Errorf("second: %w", &os.PathError{Op: "mkdir", Path: "x", Err: unix.EDQUOT})),
	&os.PathError{Op: "open", Path: "x", Err: unix.ENOENT},
	&os.LinkError{Op: "rename", Old: "x", New: "y", Err: unix.EXDEV},
	context.Canceled,
	fmt.Errorf("late: %w", context.DeadlineExceeded),
}

// What an error matches and says is the same on both sides.
func TestErrorsCross(t *testing.T) {
	targets := []error{
		dirs.ErrUntouched, dirs.ErrConflict, dirs.ErrTaken, dirs.ErrOtherShare, dirs.ErrFenced, helper.ErrStale, helper.ErrNoAnswer, helper.ErrGone,
		context.Canceled, context.DeadlineExceeded, unix.EDQUOT, unix.ENOENT, unix.EXDEV, unix.EIO, fs.ErrNotExist, fs.ErrPermission,
	}
	p, _ := open(t, helper.Options{Command: command("echo-helper")})
	for i, want := range failures {
		err := p.Do(ctx, "fail", i, nil)
		if err == nil || err.Error() != want.Error() {
			t.Errorf("got %v, want %v", err, want)
		}
		for _, target := range targets {
			if errors.Is(err, target) != errors.Is(want, target) {
				t.Errorf("%v: matches %v on one side only", want, target)
			}
		}
	}
}

// Whatever comes in, the server neither panics nor hangs.
func FuzzServe(f *testing.F) {
	f.Add(`{"id":1,"op":"open","args":{"path":"/"},"fence":0}{"cancel":1}{"id":2,"op":"create","args":{"SubDir":"x"}}`)
	f.Add(`{"id":1,"op":"records","args":"x"}`)
	f.Add(`{"id":-1}`)
	f.Fuzz(func(_ *testing.T, stdin string) {
		_ = helper.Serve(strings.NewReader(stdin), io.Discard, openEcho)
	})
}

func TestServeRefusesGarbage(t *testing.T) {
	for _, garbage := range []string{"x", `{"id":"x"}`, `{"id":1`, "[]"} {
		if err := helper.Serve(strings.NewReader(garbage), &bytes.Buffer{}, openEcho); err == nil {
			t.Errorf("%s passes", garbage)
		}
	}
	must(t, helper.Serve(strings.NewReader(""), &bytes.Buffer{}, openEcho))
}
