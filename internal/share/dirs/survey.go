package dirs

import (
	"context"
	"errors"
	"io"
	"os"
	"path"
	"slices"
	"sync"
	"time"

	"sharevol.dev/sharevol/internal/volume"
)

const (
	// mostListed keeps an answer within what the provisioner takes at once from a
	// helper, whatever the names are.
	mostListed = 1000
	// maxUnread is how many places that could not be read a survey names.
	maxUnread = 20
)

// Survey looks at the directories of the share. It descends only where volumes, or
// records of parents, are further down, and follows no link. It changes nothing and
// makes no .sharevol. Its memory is bounded by what it is asked for and by the
// limits, whatever is on the share. It tells of its progress; see WithProgress.
func (r *Root) Survey(ctx context.Context, ask Survey) (Surveyed, error) {
	if err := r.enter(ctx); err != nil {
		return Surveyed{}, untouched(err)
	}
	defer r.leave()
	s, err := r.newSurvey(ctx, ask)
	if err != nil {
		return Surveyed{}, untouched(err)
	}
	defer s.close()
	s.lookFor(ctx, ask.Volumes)
	s.walk(ctx, r.dir, "")
	s.lookInTrash(ctx)
	s.findOwners(ctx)
	s.measure(ctx)
	if s.ended == nil {
		s.ended = ctx.Err()
	}
	if s.ended != nil {
		return Surveyed{}, untouched(s.ended)
	}
	return s.answer(), nil
}

// survey is a Survey under way.
type survey struct {
	*call           // its folder is nil if the share has none, as are its owners
	ask      Survey // all names sorted in Others
	whole    bool   // the share root itself is named
	until    time.Time
	progress func()

	mu    sync.Mutex
	found Surveyed
	ended error // why it can't go on
}

func (r *Root) newSurvey(ctx context.Context, ask Survey) (*survey, error) {
	if ask.Limit <= 0 || ask.Limit > mostListed {
		ask.Limit = mostListed
	}
	if ask.Time == 0 {
		ask.Time = time.Minute
	}
	for _, dir := range ask.Volumes {
		if err := checkSubDir(dir); err != nil {
			return nil, err
		}
	}
	ask.Others = slices.Concat(ask.Others, ask.Volumes)
	slices.Sort(ask.Others)
	f, err := r.lookIn(ctx)
	if err != nil && !errors.Is(err, errNoFolder) {
		return nil, err
	}
	return &survey{
		call: &call{root: r, folder: f}, ask: ask, progress: Progress(ctx), until: time.Now().Add(ask.Time),
		whole: len(ask.Others) > 0 && ask.Others[0] == "",
	}, nil
}

func (s *survey) close() {
	if s.folder != nil {
		s.folder.close()
	}
}

// over says whether to stop looking: the time is over, or the survey has ended.
func (s *survey) over(ctx context.Context) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended != nil || ctx.Err() != nil {
		return true
	}
	if !time.Now().After(s.until) {
		return false
	}
	s.found.Cut = true
	return true
}

// unread notes a place that can't be read. If that is the share root, the survey ends.
func (s *survey) unread(shown string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case shown == "":
		s.ended = stepError("read", "the share root", err)
	case len(s.found.Unread) < maxUnread:
		s.found.Unread = append(s.found.Unread, stepError("read", shown, err).Error())
	default:
		s.found.MoreUnread++
	}
}

// unreadEntry is unread of an entry that was there a moment ago: if it has gone
// meanwhile, nothing is wrong.
func (s *survey) unreadEntry(shown string, err error) {
	if !isGone(err) {
		s.unread(shown, err)
	}
}

// each calls do for all names, several at a time.
func (s *survey) each(ctx context.Context, names []string, do func(string)) {
	next := make(chan string)
	var group sync.WaitGroup
	for range min(readers, len(names)) {
		group.Go(func() {
			for name := range next {
				do(name)
				s.progress()
			}
		})
	}
	for _, name := range names {
		if s.over(ctx) {
			break
		}
		next <- name
	}
	close(next)
	group.Wait()
}

// lookFor looks whether the directories of volumes are there.
func (s *survey) lookFor(ctx context.Context, volumes []volume.SubDir) {
	for some := range slices.Chunk(volumes, batch) {
		names := make([]string, 0, len(some))
		for _, dir := range some {
			names = append(names, string(dir))
		}
		s.each(ctx, names, func(name string) {
			var dir *found
			err := retry(func() (err error) {
				dir, err = s.root.findDir(volume.SubDir(name))
				return err
			})
			switch {
			case errors.Is(err, ErrConflict):
				s.missing(Missing{SubDir: volume.SubDir(name), Why: err.Error()})
			case err != nil:
				s.unread(name, err)
			case dir == nil:
				s.missing(Missing{SubDir: volume.SubDir(name)})
			}
			dir.close()
		})
	}
}

// walk looks at the entries of an open directory of the share, and then below those
// that lead on.
func (s *survey) walk(ctx context.Context, dir *os.File, shown string) {
	var mu sync.Mutex
	var down []string
	judge := func(dir *os.File, name string) {
		if s.judge(dir, shown, name) {
			mu.Lock()
			defer mu.Unlock()
			down = append(down, name)
		}
	}
	s.list(ctx, dir, shown, judge, func(dir *os.File) {
		for _, name := range down {
			s.descend(ctx, dir, shown, name)
		}
		down = down[:0]
	})
}

func (s *survey) descend(ctx context.Context, dir *os.File, shown, name string) {
	shown = path.Join(shown, name)
	below, err := openAt(dir, name, pathFlags, shown)
	if err != nil {
		if !isNoDirectory(err) { // it was one a moment ago
			s.unreadEntry(shown, err)
		}
		return
	}
	defer func() { _ = below.Close() }()
	if errors.Is(checkShare(below, shown), ErrConflict) {
		return
	}
	s.walk(ctx, below, shown)
}

// list calls do for the entries of a directory, several at a time, and then, after
// every some of them, so that nothing grows with the directory.
func (s *survey) list(ctx context.Context, above *os.File, shown string, do func(dir *os.File, name string), then func(dir *os.File)) {
	dir, err := openSure(above, ".", openDirFlags, shown)
	if err != nil {
		s.unread(shown, err)
		return
	}
	defer func() { _ = dir.Close() }()
	for !s.over(ctx) {
		names, err := dir.Readdirnames(batch)
		s.progress()
		s.each(ctx, names, func(name string) { do(dir, name) })
		then(dir)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				s.unread(shown, err)
			}
			return
		}
	}
}
