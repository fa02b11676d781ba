package dirs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
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
	top      *os.File // the volume directory
	dev      uint64   // its file system; another one below it is not ours to empty
	spare    chan struct{}
	moved    atomic.Int64 // directories moved up
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
		// The goroutine that has to wait for the others works too.
		spare: make(chan struct{}, c.root.options.Workers-1),
	}
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

// empty removes the entries of dir, as many at a time as there are workers to
// spare. It says whether all that it saw is gone.
func (t *tree) empty(ctx context.Context, dir *branch) bool {
	if _, err := dir.Seek(0, io.SeekStart); err != nil {
		t.fail(err)
		return false
	}
	var left atomic.Bool
	for {
		names, err := dir.Readdirnames(batch)
		var group sync.WaitGroup
		for _, name := range names {
			if t.stopped() != nil {
				left.Store(true)
				break
			}
			remove := func() {
				if !t.removeEntry(ctx, dir, name) {
					left.Store(true)
				}
			}
			select {
			case t.spare <- struct{}{}:
				group.Go(func() {
					defer func() { <-t.spare }()
					remove()
				})
			default:
				remove()
			}
		}
		group.Wait()
		switch {
		case left.Load() && t.stopped() != nil:
			return false
		case errors.Is(err, io.EOF), isGone(err):
			return !left.Load()
		case err != nil:
			t.fail(fmt.Errorf("read %s: %w", dir.shown, err))
			return false
		}
	}
}

// removeEntry removes the entry name of dir, or moves it up if it is too deep. It
// says whether it is gone from there.
func (t *tree) removeEntry(ctx context.Context, dir *branch, name string) bool {
	shown := path.Join(dir.shown, name)
	err := t.inBranch(ctx, dir, func() error { return unix.Unlinkat(int(dir.Fd()), name, 0) })
	switch {
	case err == nil:
		dir.removed.Add(1)
		t.step()
		return true
	case isGone(err):
		return true
	case !errors.Is(err, unix.EISDIR):
		t.failStep("unlink", shown, dir.File, name, err)
		return false
	}
	if dir.depth >= maxDepth {
		return t.moveUp(ctx, dir, name, shown)
	}
	file, err := t.openBranch(ctx, dir.File, name, shown)
	switch {
	case isGone(err), isNoDirectory(err): // not any more: it is read again
		return true
	case err != nil:
		t.failStep("open", shown, dir.File, name, err)
		return false
	}
	defer func() { _ = file.Close() }()
	if !t.removeDir(ctx, dir.File, name, &branch{File: file, shown: shown, depth: dir.depth + 1}) {
		return false
	}
	dir.removed.Add(1)
	return true
}

// moveUp moves the directory name out of dir into the volume directory.
func (t *tree) moveUp(ctx context.Context, dir *branch, name, shown string) bool {
	// Whatever it may replace up there is an empty directory, to be removed as well.
	up := func() error { return unix.Renameat(int(dir.Fd()), name, int(t.top.Fd()), rand.Text()) }
	err := t.inBranch(ctx, dir, up)
	if isDenied(err) && t.makeAccessible(ctx, dir.File, name, shown) == nil {
		err = t.change(ctx, up)
	}
	if err != nil && !isGone(err) {
		t.failStep("move", shown, dir.File, name, err)
		return false
	}
	dir.removed.Add(1)
	t.moved.Add(1)
	t.step()
	return true
}

// inBranch does a step that changes the entries of dir. If its mode forbids that
// even to its owner, it gets another one, once.
func (t *tree) inBranch(ctx context.Context, dir *branch, step func() error) error {
	err := t.change(ctx, step)
	if !isDenied(err) {
		return err
	}
	dir.opened.Do(func() { _ = t.change(ctx, func() error { return makeAccessible(dir.File) }) })
	return t.change(ctx, step)
}

// isGone says that another call has removed something first, an entry or the
// directory with it. In the end rmdir tells.
func isGone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESTALE) }

// step tells of one step done.
func (t *tree) step() {
	if t.removed.Add(1) == 1 {
		fault.Point("removing")
	}
	t.progress()
}
