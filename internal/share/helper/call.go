package helper

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"sharevol.dev/sharevol/internal/share/dirs"
)

// Open opens the share. Unlike the other methods it returns as soon as ctx ends.
// Nothing on the share changes by it.
func (p *Process) Open(ctx context.Context) error {
	return p.abandonable(ctx, opOpen, openArgs{Path: p.options.Path, NFS: p.options.NFS})
}

// Probe proves that the share answers. It, too, returns as soon as ctx ends.
func (p *Process) Probe(ctx context.Context) error { return p.abandonable(ctx, opProbe, nil) }

func (p *Process) abandonable(ctx context.Context, op string, args any) error {
	done := make(chan error, 1)
	go func() { done <- p.Do(ctx, op, args, nil) }() // ends as all calls do
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Do has the helper do an operation, and stores its result where result points, unless
// that is nil. An operation tells of its progress every 100 ms at most.
func (p *Process) Do(ctx context.Context, op string, args, result any) error {
	encoded, err := json.Marshal(args)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%w: %w", dirs.ErrUntouched, err)
	}
	c := &call{answer: make(chan reply, 1), progress: dirs.Progress(ctx)}
	p.mu.Lock()
	p.lastID++
	id := p.lastID
	p.calls[id] = c
	p.mu.Unlock()
	select {
	case <-p.failed:
		return fmt.Errorf("%w: %w", dirs.ErrUntouched, p.failure)
	default:
	}
	p.send(request{ID: id, Op: op, Args: encoded})

	r, err := p.await(ctx, id, c)
	switch {
	case err != nil:
		return err
	case r.Error != nil:
		return r.Error.error()
	case result == nil:
		return nil
	}
	if err := json.Unmarshal(r.Result, result); err != nil {
		return fmt.Errorf("result of %s: %w", op, err)
	}
	return nil
}

// await returns the answer to the request id.
func (p *Process) await(ctx context.Context, id uint64, c *call) (reply, error) {
	ticker := time.NewTicker(p.options.Timeout / patienceTicks)
	defer ticker.Stop()
	cancelled := ctx.Done()
	for seen, silent := int64(0), 0; ; {
		select {
		case r := <-c.answer:
			return r, nil
		case <-p.failed:
			select {
			case r := <-c.answer: // it came before
				return r, nil
			default:
				return reply{}, p.failure
			}
		case <-cancelled:
			cancelled = nil
			p.send(request{Cancel: id})
		case <-ticker.C:
			if now := c.steps.Load(); now != seen {
				seen, silent = now, 0
			} else if silent++; silent == patienceTicks {
				p.fail(fmt.Errorf("%w: nothing for %v", ErrNoAnswer, p.options.Timeout))
			}
		}
	}
}
