// Package fakemount is the fake of nfsmount.Mounter for tests of logic: it keeps
// its mounts in memory and shows an export as a link to a local directory.
package fakemount

import (
	"context"
	"fmt"
	"io/fs"
	"os"
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

// Mount puts a link to the export's directory in the place of target.
func (m *Mounter) Mount(ctx context.Context, source, target string, options []string) error {
	m.mu.Lock()
	m.calls = append(m.calls, Call{Source: source, Target: target, Options: options})
	dir, exists := m.Exports[source]
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
	if err := os.Remove(target); err != nil {
		return err
	}
	if err := os.Symlink(dir, target); err != nil {
		return err
	}
	m.Put(target, nfsmount.Layer{Source: source, FSType: "nfs4"})
	return nil
}

// Unmount puts an empty directory back in the place of target.
func (m *Mounter) Unmount(_ context.Context, target string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.layers[target]) == 0 {
		return nil
	}
	delete(m.layers, target)
	if info, err := os.Lstat(target); err == nil && info.Mode().Type() == fs.ModeSymlink {
		if err := os.Remove(target); err != nil {
			return err
		}
		return os.Mkdir(target, 0o750)
	}
	return nil
}

// Layers returns what is mounted on target.
func (m *Mounter) Layers(target string) ([]nfsmount.Layer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]nfsmount.Layer(nil), m.layers[target]...), nil
}

// Check returns CheckErr.
func (m *Mounter) Check() error { return m.CheckErr }
