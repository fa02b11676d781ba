package testbed

import "context"

// RunFolder makes a fresh folder in the cache for a run on the host itself, and clears away those of runs
// that were killed. release removes it; of a failed run, its folder "logs" is kept in the cache if it has one.
func (h *Host) RunFolder(ctx context.Context, name string) (dir string, release func(failed bool) error, err error) {
	dir, unlock, err := h.newShare(ctx, name)
	if err != nil {
		return "", nil, err
	}
	return dir, func(failed bool) error {
		defer unlock()
		return h.endShare(dir, name, failed)
	}, nil
}

// Guard makes sure that a process group ends when this process does, however that ends. The caller
// dismisses the guard once the group has ended by itself.
func Guard(group int) (dismiss func(), err error) { return guard(group) }
