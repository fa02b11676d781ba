package cluster

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"sharevol.dev/sharevol/internal/volume"
)

const (
	// lookupTimeout bounds one look at the name service.
	lookupTimeout = 5 * time.Second
	// addressesKept is how long a server's addresses are believed.
	addressesKept = 30 * time.Second
)

// servers tells whether two names are one server's. It may be used concurrently.
type servers struct {
	lookup func(ctx context.Context, host string) ([]string, error)

	mu    sync.Mutex
	known map[string]addresses
}

type addresses struct {
	list  []string
	since time.Time
}

func newServers(lookup func(ctx context.Context, host string) ([]string, error)) *servers {
	return &servers{lookup: lookup, known: map[string]addresses{}}
}

// same reports whether two servers have an address in common. It is an error when the
// name service does not tell.
func (s *servers) same(ctx context.Context, a, b string) (bool, error) {
	if volume.CanonicalServer(a) == volume.CanonicalServer(b) {
		return true, nil
	}
	first, err := s.addresses(ctx, a)
	if err != nil {
		return false, err
	}
	second, err := s.addresses(ctx, b)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(first, func(address string) bool { return slices.Contains(second, address) }), nil
}

func (s *servers) addresses(ctx context.Context, server string) ([]string, error) {
	s.mu.Lock()
	found, ok := s.known[server]
	s.mu.Unlock()
	if ok && time.Since(found.since) < addressesKept {
		return found.list, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	list, err := s.lookup(ctx, server)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", server, err)
	}
	for i, address := range list {
		list[i] = volume.CanonicalServer(address)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[server] = addresses{list: list, since: time.Now()}
	return list, nil
}
