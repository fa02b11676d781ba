package dirs

import "context"

type progressKey struct{}

// WithProgress returns a context for a call that may take long: Delete, Records and
// Survey call progress after each step then, of which each takes a few requests to
// the server. It is called by several goroutines at once and must not block.
func WithProgress(ctx context.Context, progress func()) context.Context {
	return context.WithValue(ctx, progressKey{}, progress)
}

// Progress returns what tells of a step to whoever waits for a call with ctx. It is
// never nil.
func Progress(ctx context.Context) func() {
	if progress, wanted := ctx.Value(progressKey{}).(func()); wanted {
		return progress
	}
	return func() {}
}
