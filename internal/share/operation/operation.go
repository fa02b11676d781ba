// Package operation lists what can be done on a share, as data: each operation is one
// line here. Its name and its arguments travel as JSON from the caller to the helper
// process of the share, which runs it on the share root.
package operation

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"sharevol.dev/sharevol/internal/share/dirs"
)

// The operations. The package dirs says what each promises.
var (
	Create   = register("create", Creation, (*dirs.Root).Create)
	Delete   = register("delete", Removal, noResult((*dirs.Root).Delete))
	Archive  = register("archive", Removal, (*dirs.Root).Archive)
	Release  = register("release", Removal, noResult((*dirs.Root).Release))
	Drop     = register("drop", Removal, noResult((*dirs.Root).Drop))
	Records  = register("records", Creation|Long, (*dirs.Root).Records)
	Describe = register("describe", Removal, noArguments((*dirs.Root).Describe))
	Survey   = register("survey", Removal|Long, (*dirs.Root).Survey)
)

// None stands for arguments or a result that an operation does not have.
type None struct{}

// Kind says which queue of a server an operation waits in, and whether how long it took
// says anything about the server.
type Kind int

const (
	// Removal is the kind of operations that may take the server's time for long.
	Removal Kind = 0
	// Creation is the kind of operations that a claim waits for. They have a queue of
	// their own, so that none waits behind the removal of a big tree.
	Creation Kind = 1
	// Long marks operations whose work grows with the share, not with the server's speed.
	Long Kind = 2
)

// Has reports whether k includes all of kind.
func (k Kind) Has(kind Kind) bool { return k&kind == kind }

// Operation is an operation with arguments of type A and a result of type R, both of
// which JSON can hold.
type Operation[A, R any] struct {
	Name string
}

// Doer does operations on one share: it stores the result where result points.
type Doer interface {
	Do(ctx context.Context, operation string, arguments, result any) error
}

// On has doer do the operation.
func (o Operation[A, R]) On(ctx context.Context, doer Doer, arguments A) (result R, err error) {
	err = doer.Do(ctx, o.Name, arguments, &result)
	return result, err
}

// entry is an operation as the helper process sees it.
type entry struct {
	kind Kind
	run  func(context.Context, *dirs.Root, json.RawMessage) (any, error)
}

// entries has the operations by name. It is filled by the declarations above and does
// not change after that.
var entries = map[string]entry{}

// KindOf returns the kind of the operation of that name.
func KindOf(name string) Kind { return entries[name].kind }

// Run does the operation of that name on root. An unknown one, and arguments that are
// not the operation's, are errors that match dirs.ErrUntouched.
func Run(ctx context.Context, root *dirs.Root, name string, arguments json.RawMessage) (any, error) {
	operation, known := entries[name]
	if !known {
		return nil, fmt.Errorf("%w: unknown operation %q", dirs.ErrUntouched, name)
	}
	return operation.run(ctx, root, arguments)
}

func register[A, R any](name string, kind Kind, do func(*dirs.Root, context.Context, A) (R, error)) Operation[A, R] {
	entries[name] = entry{kind: kind, run: func(ctx context.Context, root *dirs.Root, encoded json.RawMessage) (any, error) {
		var arguments A
		decoder := json.NewDecoder(bytes.NewReader(encoded))
		decoder.DisallowUnknownFields() // the arguments of another operation
		if err := decoder.Decode(&arguments); err != nil {
			return nil, fmt.Errorf("%w: arguments of %s: %w", dirs.ErrUntouched, name, err)
		}
		return do(root, ctx, arguments)
	}}
	return Operation[A, R]{Name: name}
}

func noResult[A any](do func(*dirs.Root, context.Context, A) error) func(*dirs.Root, context.Context, A) (None, error) {
	return func(root *dirs.Root, ctx context.Context, arguments A) (None, error) {
		return None{}, do(root, ctx, arguments)
	}
}

func noArguments[R any](do func(*dirs.Root, context.Context) (R, error)) func(*dirs.Root, context.Context, None) (R, error) {
	return func(root *dirs.Root, ctx context.Context, _ None) (R, error) { return do(root, ctx) }
}
