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

// Create is dirs.Root.Create.
func (p *Process) Create(ctx context.Context, create dirs.Create) (dirs.Created, error) {
	var created dirs.Created
	err := p.call(ctx, opCreate, create, &created)
	return created, err
}

// Delete is dirs.Root.Delete. It tells of progress every 100 ms at most.
func (p *Process) Delete(ctx context.Context, target dirs.Target) error {
	return p.call(ctx, opDelete, target, nil)
}

// Archive is dirs.Root.Archive.
func (p *Process) Archive(ctx context.Context, target dirs.Target) (string, error) {
	var name string
	err := p.call(ctx, opArchive, target, &name)
	return name, err
}

// Release is dirs.Root.Release.
func (p *Process) Release(ctx context.Context, target dirs.Target) error {
	return p.call(ctx, opRelease, target, nil)
}

// Records is dirs.Root.Records. It tells of progress every 100 ms at most.
func (p *Process) Records(ctx context.Context, cluster string) ([]dirs.Record, error) {
	var records []dirs.Record
	err := p.call(ctx, opRecords, cluster, &records)
	return records, err
}

// Drop is dirs.Root.Drop.
func (p *Process) Drop(ctx context.Context, target dirs.Target) error {
	return p.call(ctx, opDrop, target, nil)
}

// Describe is dirs.Root.Describe.
func (p *Process) Describe(ctx context.Context) (dirs.Description, error) {
	var description dirs.Description
	err := p.call(ctx, opDescribe, nil, &description)
	return description, err
}

// Survey is dirs.Root.Survey. It tells of progress every 100 ms at most.
func (p *Process) Survey(ctx context.Context, ask dirs.Survey) (dirs.Surveyed, error) {
	var found dirs.Surveyed
	err := p.call(ctx, opSurvey, ask, &found)
	return found, err
}

func (p *Process) abandonable(ctx context.Context, op string, args any) error {
	done := make(chan error, 1)
	go func() { done <- p.call(ctx, op, args, nil) }() // ends as all calls do
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// call has the helper do op and stores its result in result, if not nil.
func (p *Process) call(ctx context.Context, op string, args, result any) error {
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
