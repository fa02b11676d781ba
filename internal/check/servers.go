package check

import (
	"context"
	"slices"
	"sync"
	"time"

	"sharevol.dev/sharevol/internal/volume"
)

const (
	// lookupTimeout bounds asking the name service for one server.
	lookupTimeout = 5 * time.Second
	// lookupsAtOnce is how many servers it is asked for at a time.
	lookupsAtOnce = 16
)

// servers are the addresses of the servers that the cluster's volumes and classes name:
// one server may have several names. Nil stands for one whose name can't be looked up.
type servers map[string][]string

// lookUp adds the servers of what the API server said.
func (all servers) lookUp(ctx context.Context, state *state, lookup func(context.Context, string) ([]string, error)) {
	var wanted []string
	add := func(server string) {
		name := volume.CanonicalServer(server)
		if all[name] == nil && name != "" && !slices.Contains(wanted, name) {
			all[name] = nil
			wanted = append(wanted, name)
		}
	}
	for _, v := range state.volumes {
		add(v.directory.Share.Server)
	}
	for _, class := range state.classes {
		add(class.class.Share.Server)
	}
	if len(all) < 2 {
		return // nothing to tell apart
	}
	turns := make(chan struct{}, lookupsAtOnce)
	var mu sync.Mutex
	var group sync.WaitGroup
	for _, name := range wanted {
		turns <- struct{}{}
		group.Go(func() {
			defer func() { <-turns }()
			ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
			defer cancel()
			addresses, err := lookup(ctx, name)
			if err != nil {
				return
			}
			for i := range addresses {
				addresses[i] = volume.CanonicalServer(addresses[i])
			}
			mu.Lock()
			defer mu.Unlock()
			all[name] = addresses
		})
	}
	group.Wait()
}

// unknown returns the servers that can't be looked up, where there are others.
func (all servers) unknown() []string {
	var names []string
	for name, addresses := range all {
		if addresses == nil && len(all) > 1 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// maySame reports whether two servers may be one: they have a name or an address in
// common, or nobody can tell.
func (all servers) maySame(a, b string) bool {
	a, b = volume.CanonicalServer(a), volume.CanonicalServer(b)
	first, second := all[a], all[b]
	return a == b || first == nil || second == nil ||
		slices.ContainsFunc(first, func(address string) bool { return slices.Contains(second, address) })
}
