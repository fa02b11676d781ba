package helper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sharevol.dev/sharevol/internal/fence"
	"sharevol.dev/sharevol/internal/share/dirs"
)

// progressEvery is how often one call's progress is told at most.
const progressEvery = 100 * time.Millisecond

// nfsMagic is NFS_SUPER_MAGIC of linux/magic.h.
const nfsMagic = 0x6969

// Opener opens the share that shows at path for Serve. With nfs, anything but an NFS
// mount there must be an error. The Work asks the fence before each step and takes the
// step only if that returns nil.
type Opener func(path string, nfs bool, fence func() error) (Work, error)

// Main is the program as a helper. It returns when stdin ends, without waiting for
// operations: the caller must exit then, which ends those as well that hang.
func Main(stdin io.Reader, stdout io.Writer) error {
	// What the rest of the program needed while it initialised itself.
	debug.FreeOSMemory()
	return Serve(stdin, stdout, openDirs)
}

func openDirs(path string, nfs bool, fence func() error) (Work, error) {
	// Looked at before and after: what is opened in between is the mount as well,
	// and no local directory that shows when somebody unmounts it.
	if err := checkMount(path, nfs); err != nil {
		return nil, err
	}
	root, err := dirs.Open(path, dirs.Options{Fence: fence})
	if err != nil {
		return nil, err
	}
	if err := checkMount(path, nfs); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return Root{root}, nil
}

func checkMount(path string, nfs bool) error {
	if !nfs {
		return nil
	}
	var stat unix.Statfs_t
	if err := unix.Statfs(path, &stat); err != nil {
		return fmt.Errorf("statfs %s: %w", path, err)
	}
	if stat.Type != nfsMagic {
		return fmt.Errorf("no NFS export is mounted on %s any more", path)
	}
	return nil
}

// Serve answers the requests on stdin until it ends, which is no error. What runs
// then is cancelled but not waited for.
func Serve(stdin io.Reader, stdout io.Writer, open Opener) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s := &server{open: open, fence: fence.Unfenced(), encoder: json.NewEncoder(stdout), cancels: map[uint64]context.CancelFunc{}}
	decoder := json.NewDecoder(stdin)
	for {
		var r request
		if err := decoder.Decode(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read a request: %w", err)
		}
		if r.Fence != nil {
			s.fence.Follow(*r.Fence)
		}
		if r.Cancel != 0 {
			s.cancel(r.Cancel)
		}
		if r.Op != "" {
			// Nothing here may block: the fence and the end must always be seen.
			ctx, cancel := context.WithCancel(ctx)
			s.mu.Lock()
			s.cancels[r.ID] = cancel
			s.mu.Unlock()
			go s.answer(ctx, r)
		}
	}
}

type server struct {
	open  Opener
	fence *fence.Fence // never ends until it is told

	sending sync.Mutex // guards encoder
	encoder *json.Encoder

	mu      sync.Mutex
	work    Work // nil until it is opened
	cancels map[uint64]context.CancelFunc
}

func (s *server) cancel(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cancel, runs := s.cancels[id]; runs {
		cancel()
	}
}

// answer does what r asks for and replies.
func (s *server) answer(ctx context.Context, r request) {
	var last atomic.Int64
	progress := func() {
		now, before := time.Now().UnixNano(), last.Load()
		if now-before >= int64(progressEvery) && last.CompareAndSwap(before, now) {
			s.send(reply{ID: r.ID, Progress: true})
		}
	}
	result, err := s.perform(dirs.WithProgress(ctx, progress), r)
	s.cancel(r.ID)
	s.mu.Lock()
	delete(s.cancels, r.ID)
	s.mu.Unlock()

	answer := reply{ID: r.ID}
	if err == nil {
		answer.Result, err = json.Marshal(result)
	}
	if err != nil {
		answer.Error = newFailure(err)
	}
	s.send(answer)
}

func (s *server) send(r reply) {
	s.sending.Lock()
	defer s.sending.Unlock()
	// It fails only if nobody listens any more; then stdin ends, too.
	_ = s.encoder.Encode(r)
}

// perform does what r asks for. All errors that may be due to a stale root say
// whether they are.
func (s *server) perform(ctx context.Context, r request) (any, error) {
	if r.Op == opOpen {
		return nil, s.openShare(r.Args)
	}
	s.mu.Lock()
	work := s.work
	s.mu.Unlock()
	if work == nil {
		return nil, fmt.Errorf("%w: the share is not open", dirs.ErrUntouched)
	}
	if r.Op == opProbe {
		return nil, work.Probe(ctx)
	}
	result, err := work.Run(ctx, r.Op, r.Args)
	if errors.Is(err, unix.ESTALE) || errors.Is(err, unix.ENOENT) {
		// Of something inside the share, it says nothing about the root.
		if probeErr := work.Probe(ctx); probeErr != nil && ctx.Err() == nil {
			return nil, fmt.Errorf("%w: %w", ErrStale, err)
		}
	}
	return result, err
}

func (s *server) openShare(args json.RawMessage) error {
	var a openArgs
	if err := json.Unmarshal(args, &a); err != nil {
		return err
	}
	work, err := s.open(a.Path, a.NFS, s.fence.Check)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.work = work
	return nil
}
