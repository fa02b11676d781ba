package dirs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Options of a Root. The zero value works.
type Options struct {
	// Fence is asked before each step that changes the share. Its error ends the
	// call there, and ErrFenced matches what the call returns. It is called by
	// several goroutines at once. nil never ends anything.
	Fence func() error
	// Workers is how many directories are emptied at a time: 12 when zero. The volumes
	// that are being removed share them, so that a server's other clients, and creations,
	// do not wait behind all of them; each volume has one at least.
	Workers int
}

// Root is an open share root. Its methods may be called concurrently.
type Root struct {
	options Options
	dir     *os.File
	self    identity
	trees   atomic.Int64 // that are being removed

	// parents keeps creations that are on their way through a parent, and the
	// removal of empty parents, out of each other's way. Among several processes
	// they meet, and the one that loses starts again.
	parents sync.RWMutex

	mu     sync.Mutex // guards what follows, and the refs of all folders
	folder *folder    // .sharevol once it was opened
	calls  int
	closed bool
}

// Open opens the share root at path, which must be a directory and no link.
func Open(path string, options Options) (*Root, error) {
	if options.Fence == nil {
		options.Fence = func() error { return nil }
	}
	if options.Workers <= 0 {
		options.Workers = 12
	}
	fd, err := ignoringEINTR(func() (int, error) { return unix.Open(path, openDirFlags, 0) })
	if err != nil {
		return nil, openError(path, err)
	}
	dir := os.NewFile(uintptr(fd), path)
	self, err := statFile(dir, fresh)
	if err != nil {
		_ = dir.Close()
		return nil, stepError("stat", path, err)
	}
	return &Root{options: options, dir: dir, self: self.identity}, nil
}

// Close gives up the share root. Calls that are under way are not disturbed: the
// last of them closes what it uses.
func (r *Root) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return os.ErrClosed
	}
	r.closed = true
	r.drop(r.folder)
	r.folder = nil
	if r.calls > 0 {
		return nil
	}
	return r.dir.Close()
}

// Probe asks the server for the share root, in one round trip, and says whether it
// is still there.
func (r *Root) Probe(ctx context.Context) error {
	if err := r.enter(ctx); err != nil {
		return untouched(err)
	}
	defer r.leave()
	now, err := statFile(r.dir, fresh)
	switch {
	case err != nil:
		return untouched(stepError("stat", "the share root", err))
	case now.links == 0 || now.identity != r.self:
		return untouched(errors.New("the share root is not the directory that it was"))
	}
	return nil
}

// enter begins a call, leave ends it.
func (r *Root) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return fmt.Errorf("share root: %w", os.ErrClosed)
	}
	r.calls++
	return nil
}

func (r *Root) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.calls--; r.closed && r.calls == 0 {
		_ = r.dir.Close()
	}
}

// call is one method call under way.
type call struct {
	root    *Root
	folder  *folder
	changed atomic.Bool // whether a step changed the share, or may have
}

// begin begins a call on the share with the id want; see Root.open.
func (r *Root) begin(ctx context.Context, want string, create bool) (*call, error) {
	if err := r.enter(ctx); err != nil {
		return nil, untouched(err)
	}
	f, err := r.open(ctx, want, create)
	if err != nil {
		r.leave()
		return nil, untouched(err)
	}
	return &call{root: r, folder: f}, nil
}

func (c *call) end() {
	c.root.release(c.folder)
	c.root.leave()
}

// result is what the call returns for err.
func (c *call) result(err error) error {
	if errors.Is(err, errMoved) {
		err = fmt.Errorf("%w by somebody else: try again", err)
	}
	if c.changed.Load() {
		return err
	}
	return untouched(err)
}

// permit says whether another step may be done.
func (r *Root) permit(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := r.options.Fence(); err != nil {
		return fmt.Errorf("%w: %w", ErrFenced, err)
	}
	return nil
}

// change does a step that changes the share, if it may. All of them go through here.
func (c *call) change(ctx context.Context, step func() error) error {
	if err := c.root.permit(ctx); err != nil {
		return err
	}
	err := step()
	if err == nil || !isDefinite(err) {
		c.changed.Store(true)
	}
	return err
}

// maxTries is how often a call looks again when others change what it works on.
const maxTries = 5

// retry repeats step as long as it says that things have moved. So does ESTALE, of
// what another client has removed and this one still remembers.
func retry(step func() error) error {
	for try := 1; ; try++ {
		err := step()
		if moved := errors.Is(err, errMoved) || errors.Is(err, unix.ESTALE); !moved || try == maxTries {
			return err
		}
	}
}
