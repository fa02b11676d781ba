// Package fakemount is the fake of nfsmount.Mounter for tests of logic: it keeps
// its mounts in memory and has local directories as exports.
package fakemount

import (
	"context"
	"fmt"
	"io/fs"
	"sync"

	"sharevol.dev/sharevol/internal/nfsmount"
)

// Mounter is a stateful fake. The zero value has no exports; set its fields
// before the first call.
type Mounter struct {
	// Exports maps a source ("server:/path") to the local directory that it shows.
	// A source that is not in it does not exist on its server.
	Exports map[string]string
	// Block, when not nil, makes every Mount wait until it is closed or ctx ends.
	Block chan struct{}
	// CheckErr is what Check returns.
	CheckErr error

	mu     sync.Mutex
	layers map[string][]nfsmount.Layer
	calls  []Call
}

// Call is one Mount that was asked for.
type Call struct {
	Source, Target string
	Options        []string
}

// Calls returns the Mounts so far, failed ones too.
func (m *Mounter) Calls() []Call {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Call(nil), m.calls...)
}

// Put shows source as mounted on target without a call, as if it had been there before.
func (m *Mounter) Put(target string, layer nfsmount.Layer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.layers == nil {
		m.layers = map[string][]nfsmount.Layer{}
	}
	m.layers[target] = append(m.layers[target], layer)
}

// Mount shows source as mounted on target.
func (m *Mounter) Mount(ctx context.Context, source, target string, options []string) error {
	m.mu.Lock()
	m.calls = append(m.calls, Call{Source: source, Target: target, Options: options})
	_, exists := m.Exports[source]
	mounted := len(m.layers[target]) > 0
	m.mu.Unlock()
	if m.Block != nil {
		select {
		case <-m.Block:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	switch {
	case mounted:
		return fmt.Errorf("mount %s: something is mounted on %s", source, target)
	case !exists:
		return fmt.Errorf("mount %s: %w", source, fs.ErrNotExist)
	}
	m.Put(target, nfsmount.Layer{Source: source, FSType: "nfs4"})
	return nil
}

// Unmount takes all that is mounted on target away.
func (m *Mounter) Unmount(_ context.Context, target string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.layers, target)
	return nil
}

// Shown returns the local directory that shows on target, "" if nothing is mounted there.
func (m *Mounter) Shown(target string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	layers := m.layers[target]
	if len(layers) == 0 {
		return ""
	}
	return m.Exports[layers[len(layers)-1].Source]
}

// Export makes source exist on its server, as the local directory dir.
func (m *Mounter) Export(source, dir string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.Exports == nil {
		m.Exports = map[string]string{}
	}
	m.Exports[source] = dir
}

// Layers returns what is mounted on target.
func (m *Mounter) Layers(target string) ([]nfsmount.Layer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]nfsmount.Layer(nil), m.layers[target]...), nil
}

// Check returns CheckErr.
func (m *Mounter) Check() error { return m.CheckErr }
