package dirs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"path"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// empty removes the entries of dir. It says whether all that it saw is gone.
func (t *tree) empty(ctx context.Context, dir *branch) bool {
	if _, err := dir.Seek(0, io.SeekStart); err != nil {
		t.fail(err)
		return false
	}
	all := true
	for {
		names, err := dir.Readdirnames(batch)
		all = t.removeEntries(ctx, dir, names) && all
		switch {
		case !all && t.stopped() != nil:
			return false
		case errors.Is(err, io.EOF), isGone(err):
			return all
		case err != nil:
			t.fail(fmt.Errorf("read %s: %w", dir.shown, err))
			return false
		}
	}
}

// removeEntries removes entries of dir and says whether all are gone. What is no
// directory goes one after the other: the kernel lets only one change a directory at a
// time, for the whole round trip, so that more workers would only wait there. The
// directories go meanwhile, by as many workers as there are to spare.
func (t *tree) removeEntries(ctx context.Context, dir *branch, names []string) bool {
	b := &below{tree: t, dir: dir, found: make(chan string, len(names))}
	for _, name := range names {
		if t.stopped() != nil {
			b.left.Store(true)
			break
		}
		switch gone, err := t.unlinkEntry(ctx, dir, name); {
		case errors.Is(err, unix.EISDIR):
			b.found <- name
			b.start(ctx)
		case !gone:
			b.left.Store(true)
		}
	}
	for b.one(ctx) {
	}
	<-t.busy // whoever waits does not work
	b.group.Wait()
	t.busy <- struct{}{}
	return !b.left.Load()
}

// below is the directories found in one.
type below struct {
	*tree
	dir   *branch
	found chan string // those that nobody has taken
	left  atomic.Bool // whether any is left
	group sync.WaitGroup
}

// start starts another worker if there is one to spare.
func (b *below) start(ctx context.Context) {
	if len(b.busy) >= b.fair() {
		return
	}
	select {
	case b.busy <- struct{}{}:
		b.group.Go(func() {
			defer func() { <-b.busy }()
			for len(b.busy) <= b.fair() && b.one(ctx) {
			}
		})
	default:
	}
}

// one removes a directory that nobody has taken, if there is one.
func (b *below) one(ctx context.Context) bool {
	select {
	case name := <-b.found:
		if len(b.found) > 0 {
			b.start(ctx) // somebody may have become free
		}
		if b.stopped() != nil || !b.removeBelow(ctx, b.dir, name) {
			b.left.Store(true)
		}
		return true
	default:
		return false
	}
}

// unlinkEntry removes the entry name of dir and says whether it is gone. Of a directory
// it returns EISDIR.
func (t *tree) unlinkEntry(ctx context.Context, dir *branch, name string) (gone bool, err error) {
	err = t.inBranch(ctx, dir, func() error { return unix.Unlinkat(int(dir.Fd()), name, 0) })
	switch {
	case err == nil:
		dir.removed.Add(1)
		t.step()
		return true, nil
	case isGone(err):
		return true, nil
	case !errors.Is(err, unix.EISDIR):
		t.failStep("unlink", path.Join(dir.shown, name), dir.File, name, err)
	}
	return false, err
}

// removeBelow removes the directory name in dir, or moves it up if it is too deep. It
// says whether it is gone from there.
func (t *tree) removeBelow(ctx context.Context, dir *branch, name string) bool {
	shown := path.Join(dir.shown, name)
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
