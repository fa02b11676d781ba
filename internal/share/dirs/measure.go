package dirs

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Size is the sum of the sizes of a directory's files, as they would be read.
type Size struct {
	Bytes, Files uint64
	// Cut says why the sum is not complete; empty if it is.
	Cut string
}

// Why a Size is not complete, beside what could not be read.
const (
	cutUnmeasured = "not measured"
	cutTime       = "cut off: the time was over"
	cutDepth      = "cut off: there are directories more than 32 levels down"
)

// measure adds up the sizes of archives and of what is in the trash. Each gets an
// equal part of the time that is left, so that a big one does not take it all.
func (s *survey) measure(ctx context.Context) {
	var all []*Kept
	for _, list := range [][]Kept{s.found.Archives, s.found.Trash} {
		for i := range list {
			all = append(all, &list[i])
		}
	}
	end := time.Now().Add(s.ask.SizeTime)
	for i, kept := range all {
		if s.ask.SizeTime == 0 {
			kept.Size.Cut = cutUnmeasured
			continue
		}
		part := time.Until(end) / time.Duration(len(all)-i)
		m := &measurement{until: time.Now().Add(part), progress: s.progress}
		m.measure(ctx, s.root, kept.Path)
		kept.Size = m.size
	}
}

// measurement adds up the size of one directory.
type measurement struct {
	until    time.Time
	progress func()
	size     Size
	dev      uint64
}

// measure adds up what is at the path from the share root.
func (m *measurement) measure(ctx context.Context, r *Root, path string) {
	at, err := r.find(path)
	if at == nil || err != nil {
		m.cut(err)
		return
	}
	defer at.close()
	m.entry(ctx, at.dir, at.name, 0)
}

func (m *measurement) cut(err error) {
	if err != nil && !isGone(err) && m.size.Cut == "" {
		m.size.Cut = "not all of it can be read: " + err.Error()
	}
}

// entry adds the entry name of dir, with all that is in it.
func (m *measurement) entry(ctx context.Context, dir *os.File, name string, depth int) {
	st, err := statAt(dir, name, cached)
	switch {
	case err != nil:
		m.cut(err)
		return
	case depth == 0:
		m.dev = st.dev
	case st.dev != m.dev: // another file system is not of it
		return
	}
	switch {
	case st.mode&unix.S_IFMT == unix.S_IFREG:
		m.size.Bytes += st.size
		m.size.Files++
	case st.isDir() && depth > maxDepth:
		m.size.Cut = cmp.Or(m.size.Cut, cutDepth)
	case st.isDir():
		m.dir(ctx, dir, name, depth)
	}
}

func (m *measurement) dir(ctx context.Context, above *os.File, name string, depth int) {
	dir, err := openAt(above, name, openDirFlags, name)
	if err != nil {
		if !isNoDirectory(err) {
			m.cut(err)
		}
		return
	}
	defer func() { _ = dir.Close() }()
	for {
		names, err := dir.Readdirnames(batch)
		m.progress()
		for _, name := range names {
			if ctx.Err() != nil || time.Now().After(m.until) {
				m.size.Cut = cutTime
				return
			}
			m.entry(ctx, dir, name, depth+1)
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				m.cut(err)
			}
			return
		}
	}
}
