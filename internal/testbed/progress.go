package testbed

import (
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	progressPatience = 2 * time.Second  // what is faster than this is not worth a line
	progressEvery    = 15 * time.Second // how often a long step says that it still goes on
)

// Progress tells a person what is going on, in plain lines that read well in a log too. It may be used
// by many goroutines at once; a nil Progress says nothing.
type Progress struct {
	mu  sync.Mutex
	out io.Writer
}

// NewProgress returns a Progress that writes to out.
func NewProgress(out io.Writer) *Progress { return &Progress{out: out} }

// Note prints one line.
func (p *Progress) Note(format string, args ...any) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.out, "testbed: "+format+"\n", args...)
}

// Step announces what, as soon as it has taken a few seconds, then its elapsed time now and then. The
// returned function ends the step and prints how long it took.
func (p *Progress) Step(what string) (done func(error)) {
	start, stop, stopped := time.Now(), make(chan struct{}), make(chan struct{})
	announced := false
	go func() {
		defer close(stopped)
		for wait := progressPatience; ; wait = progressEvery {
			select {
			case <-stop:
				return
			case <-time.After(wait):
			}
			if announced {
				p.Note("%s: %s so far", what, rounded(start))
			} else {
				p.Note("%s ...", what)
			}
			announced = true
		}
	}()
	return func(err error) {
		close(stop)
		<-stopped
		switch {
		case err != nil:
			p.Note("%s: failed after %s", what, rounded(start))
		case announced:
			p.Note("%s: done in %s", what, rounded(start))
		}
	}
}

func rounded(start time.Time) time.Duration { return time.Since(start).Round(time.Second) }
