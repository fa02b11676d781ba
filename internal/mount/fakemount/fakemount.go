// Package fakemount is the fake of mount.Mounter for tests of logic: it keeps
// its mounts in memory and has local directories as exports.
package fakemount

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"sharevol.dev/sharevol/internal/mount"
)

// Mounter is a stateful fake. The zero value has no exports; set its fields
// before the first call.
type Mounter struct {
	// Exports maps a source ("server:/path") to the local directory that it shows.
	// A source that is not in it does not exist on its server.
	Exports map[string]string
	// Devices maps a source to the number of its file system, "0:50" for those that are not in it.
	Devices map[string]string
	// ShownAs maps a source to what mountinfo shows for it, where that differs.
	ShownAs map[string]string
	// Block, when not nil, makes every Mount wait until it is closed or ctx ends.
	Block chan struct{}
	// BlockSource, when not empty, has Block apply to this source alone.
	BlockSource string
	// AfterMount, when not nil, is called before a Mount returns.
	AfterMount func()
	// CheckErr is what Check returns.
	CheckErr error

	mu       sync.Mutex
	layers   map[string][]mount.Layer
	failures map[string]error
	pending  map[string]error
	calls    []Call
	unmounts []Call
}

// Call is one Mount or Unmount that was asked for.
type Call struct {
	Source, Target string
	Options        []string
	Deadline       time.Time // that of its context, zero for none
}

// Calls returns the Mounts so far, failed ones too.
func (m *Mounter) Calls() []Call {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.calls)
}

// Unmounts returns the Unmounts so far, failed ones too.
func (m *Mounter) Unmounts() []Call {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.unmounts)
}

// Put shows source as mounted on target without a call, as if it had been there before.
func (m *Mounter) Put(target string, layer mount.Layer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.layers == nil {
		m.layers = map[string][]mount.Layer{}
	}
	m.layers[target] = append(m.layers[target], layer)
}

// Fail has Mount fail with err for a source, or Unmount for a target; nil ends that.
func (m *Mounter) Fail(what string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	set(&m.failures, what, err)
}

// SetPending has an earlier mount be at work on target, with this error; nil ends that.
func (m *Mounter) SetPending(target string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	set(&m.pending, target, err)
}

func set(errs *map[string]error, key string, err error) {
	if *errs == nil {
		*errs = map[string]error{}
	}
	(*errs)[key] = err
}

func call(ctx context.Context, source, target string, options []string) Call {
	deadline, _ := ctx.Deadline()
	return Call{Source: source, Target: target, Options: options, Deadline: deadline}
}

// Mount shows source as mounted on target.
func (m *Mounter) Mount(ctx context.Context, spec mount.Spec, target string) error {
	source := spec.Source
	if m.AfterMount != nil {
		defer m.AfterMount()
	}
	m.mu.Lock()
	m.calls = append(m.calls, call(ctx, source, target, spec.Options))
	_, exists := m.Exports[source]
	mounted := len(m.layers[target]) > 0
	failure := m.failures[source]
	layer := mount.Layer{Source: source, FSType: "nfs4", Device: "0:50"}
	if shown, set := m.ShownAs[source]; set {
		layer.Source = shown
	}
	if device, set := m.Devices[source]; set {
		layer.Device = device
	}
	m.mu.Unlock()
	if m.Block != nil && (m.BlockSource == "" || m.BlockSource == source) {
		select {
		case <-m.Block:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	switch {
	case failure != nil:
		return failure
	case mounted:
		return fmt.Errorf("mount %s: something is mounted on %s", source, target)
	case !exists:
		return fmt.Errorf("mount %s: %w", source, fs.ErrNotExist)
	case !spec.Shows(layer):
		return fmt.Errorf("mount %s: %w: %s", source, mount.ErrSource, layer.Source)
	}
	m.Put(target, layer)
	return nil
}

// Unmount takes all that is mounted on target away.
func (m *Mounter) Unmount(ctx context.Context, target string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unmounts = append(m.unmounts, call(ctx, "", target, nil))
	if err := m.failures[target]; err != nil {
		return err
	}
	delete(m.layers, target)
	return m.pending[target]
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
func (m *Mounter) Layers(target string) ([]mount.Layer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.layers[target]), nil
}

// Mounts returns all that is mounted on any target.
func (m *Mounter) Mounts() ([]mount.Mounted, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var mounts []mount.Mounted
	for target, layers := range m.layers {
		for _, layer := range layers {
			mounts = append(mounts, mount.Mounted{Target: target, Layer: layer})
		}
	}
	return mounts, nil
}

// Pending returns what SetPending was given.
func (m *Mounter) Pending(target string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pending[target]
}

// Check returns CheckErr.
func (m *Mounter) Check() error { return m.CheckErr }
