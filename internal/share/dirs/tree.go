package dirs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/fault"
)

const (
	// maxDepth is how many directories below one another are open at a time. Pods
	// can make trees of any depth: what is deeper is moved up into the volume
	// directory. With Options.Workers it bounds the descriptors of one removal.
	maxDepth = 32
	// batch is how many names of a directory are read at a time.
	batch = 256
	// maxShown is how many failures an error tells of.
	maxShown = 3
	// maxFruitless is how often a directory is read anew that others fill meanwhile.
	maxFruitless = 3
	// maxReads is how often any directory but the volume's own is read anew, fruitful
	// or not. Somebody who fills one as fast as it is emptied must not keep the rest.
	maxReads = 20
)

// tree is the removal of one volume directory.
type tree struct {
	*call
	top      *os.File      // the volume directory
	dev      uint64        // its file system; another one below it is not ours to empty
	busy     chan struct{} // has an element for each worker that works
	moved    atomic.Int64  // directories moved up
	removed  atomic.Int64
	progress func()

	mu     sync.Mutex // guards what follows
	failed []error    // the first of them
	more   int        // how many others
	ended  error      // why it stopped before its end
}

// branch is an open directory of the tree.
type branch struct {
	*os.File
	shown   string
	depth   int
	removed atomic.Int64 // entries of it
	opened  sync.Once    // its mode, to its owner
}

// removeTree removes the directory dir and all that is in it, as much as it can.
// The error tells what is left and why.
func (c *call) removeTree(ctx context.Context, dir *found) error {
	file, err := c.openTop(ctx, dir)
	if err != nil {
		return stepError("open", dir.shown, err)
	}
	defer func() { _ = file.Close() }()
	t := &tree{
		call: c, top: file, dev: dir.stat.dev, progress: Progress(ctx),
		busy: make(chan struct{}, c.root.options.Workers),
	}
	t.busy <- struct{}{} // this goroutine
	c.root.trees.Add(1)
	defer c.root.trees.Add(-1)
	// What is moved up may land where the top has been read already.
	for {
		before := t.moved.Load()
		t.failed, t.more = nil, 0
		gone := t.removeDir(ctx, dir.dir, dir.name, &branch{File: file, shown: dir.shown})
		switch {
		case gone:
			return nil
		case t.stopped() != nil:
			return t.stopped()
		case t.moved.Load() == before:
			return t.failure()
		}
	}
}

// fair is how many workers t may have now: those of the share are divided among the
// trees that are being removed, of which each has one at least.
func (t *tree) fair() int { return max(1, cap(t.busy)/int(t.root.trees.Load())) }

// openTop opens the volume directory to read it, and gives its owner the right to do
// so if that is missing.
func (c *call) openTop(ctx context.Context, dir *found) (*os.File, error) {
	file, err := openAt(dir.file, ".", openDirFlags, dir.shown)
	if !isDenied(err) {
		return file, err
	}
	if failed := c.change(ctx, func() error { return makeAccessible(dir.file) }); isEnded(failed) {
		return nil, failed
	} else if failed != nil {
		return nil, err // what was wanted is what to tell of
	}
	return openAt(dir.file, ".", openDirFlags, dir.shown)
}

// openBranch is openTop of the directory name in dir.
func (c *call) openBranch(ctx context.Context, dir *os.File, name, shown string) (*os.File, error) {
	file, err := openAt(dir, name, openDirFlags, shown)
	if !isDenied(err) {
		return file, err
	}
	if failed := c.makeAccessible(ctx, dir, name, shown); isEnded(failed) {
		return nil, failed
	} else if failed != nil {
		return nil, err
	}
	return openAt(dir, name, openDirFlags, shown)
}

// makeAccessible gives the owner of the directory name in dir all rights to it.
func (c *call) makeAccessible(ctx context.Context, dir *os.File, name, shown string) error {
	file, err := openAt(dir, name, pathFlags, shown)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	st, err := statFile(file, cached)
	if err != nil {
		return err
	}
	if above, err := statFile(dir, cached); err != nil || above.dev != st.dev {
		return errors.Join(err, unix.EXDEV)
	}
	return c.change(ctx, func() error { return makeAccessible(file) })
}

// removeDir removes the open directory dir, which is name in parent, and says
// whether it is gone.
func (t *tree) removeDir(ctx context.Context, parent *os.File, name string, dir *branch) bool {
	st, err := statFile(dir.File, cached)
	if err == nil && st.dev != t.dev {
		err = errors.New("is the root of another file system inside the volume: not removed")
	}
	if isGone(err) {
		return true
	}
	if err != nil {
		t.fail(fmt.Errorf("%s: %w", dir.shown, err))
		return false
	}
	// Removing while reading may skip entries, a client that still writes may add
	// some, and deep directories are moved up: read again as long as that helps.
	for reads, fruitless := 0, 0; ; reads++ {
		before := dir.removed.Load()
		if !t.empty(ctx, dir) {
			return false
		}
		err := t.change(ctx, func() error { return unix.Unlinkat(int(parent.Fd()), name, unix.AT_REMOVEDIR) })
		// If the handle of what is above it is stale, that is gone, and all with it. At
		// the top it tells that the whole trash is not what it was.
		if err == nil || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESTALE) && dir.depth > 0 {
			t.step()
			return true
		}
		if fruitless++; dir.removed.Load() > before {
			fruitless = 0
		}
		if fruitless == maxFruitless || reads == maxReads && dir.depth > 0 || !isNotEmpty(err) {
			t.failStep("rmdir", dir.shown, dir.File, "", err)
			return false
		}
	}
}

// step tells of one step done.
func (t *tree) step() {
	if t.removed.Add(1) == 1 {
		fault.Point("removing")
	}
	t.progress()
}
