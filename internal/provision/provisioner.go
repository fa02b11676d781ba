// Package provision turns claims into PersistentVolumes and takes volumes away
// again: it is the Provisioner of sig-storage-lib-external-provisioner and the
// controller around it.
package provision

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v8/controller"

	"sharevol.dev/sharevol/internal/fault"
	"sharevol.dev/sharevol/internal/share"
	"sharevol.dev/sharevol/internal/share/dirs"
	"sharevol.dev/sharevol/internal/volume"
)

// Shares does the directory work. All its methods are idempotent; share.Manager
// says what is promised.
type Shares interface {
	Create(ctx context.Context, ref share.Ref, create dirs.Create) (dirs.Created, error)
	Delete(ctx context.Context, ref share.Ref, target dirs.Target) error
	Archive(ctx context.Context, ref share.Ref, target dirs.Target) (string, error)
	Release(ctx context.Context, ref share.Ref, target dirs.Target) error
	Records(ctx context.Context, ref share.Ref, cluster string) ([]dirs.Record, error)
	Drop(ctx context.Context, ref share.Ref, target dirs.Target) error
	Serves(volume.Share) bool
}

// Options of a Provisioner.
type Options struct {
	// DriverName is the CSI driver of the volumes.
	DriverName string
	// DefaultOnDelete is for classes that name no policy.
	DefaultOnDelete volume.OnDelete
	// Cluster is the UID of the namespace kube-system: who the records on a share
	// say made a directory.
	Cluster string
	Shares  Shares
	// Client confirms what the caches say and reads secrets.
	Client kubernetes.Interface
	// Caches know the cluster's volumes, claims and classes.
	Caches *Caches
	// Lease returns an error while another replica may be at work. Nil means always ours.
	Lease func() error
	// Note is told of a failure that has a pace of its own, with the UID of the claim
	// or the name of the volume. Nil is fine.
	Note func(item string, kind failure)
}

// Provisioner makes and removes the volumes of one driver. Its methods may be
// called concurrently.
type Provisioner struct {
	options   Options
	servers   *servers
	conflicts chan struct{} // gets one when a record on a share keeps a claim waiting

	mu       sync.Mutex
	draining bool
	working  map[string]int // volumes by name
	idle     sync.WaitGroup
}

var (
	_ controller.Provisioner   = (*Provisioner)(nil)
	_ controller.Qualifier     = (*Provisioner)(nil)
	_ controller.DeletionGuard = (*Provisioner)(nil)
)

// New returns a Provisioner.
func New(options Options) *Provisioner {
	if options.Lease == nil {
		options.Lease = func() error { return nil }
	}
	if options.Note == nil {
		options.Note = func(string, failure) {}
	}
	return &Provisioner{options: options, servers: newServers(), working: map[string]int{}, conflicts: make(chan struct{}, 1)}
}

// errStopping ends a call without an event on the claim or volume: the next start,
// or the replica that leads now, takes it up. The controller finds it only unwrapped.
var errStopping = &controller.IgnoredError{Reason: "this provisioner is stopping; the next one takes this up"}

// ShouldProvision leaves claims alone whose share another provisioner has
// premounted: in the unprivileged mode there is one for each server.
func (p *Provisioner) ShouldProvision(_ context.Context, claim *v1.PersistentVolumeClaim) bool {
	class := p.options.Caches.class(claim)
	if class == nil {
		return true // the controller says what is wrong
	}
	parsed, _ := volume.ParseClass(class.Parameters, nil, p.options.DefaultOnDelete)
	return parsed.Share == (volume.Share{}) || p.options.Shares.Serves(parsed.Share)
}

// ShouldDelete is the same for volumes.
func (p *Provisioner) ShouldDelete(_ context.Context, pv *v1.PersistentVolume) bool {
	vol, err := p.volumeOf(pv)
	return err != nil || p.options.Shares.Serves(vol.Share)
}

// Provision makes the claim's directory and returns its PersistentVolume, which
// the controller saves. A class or claim that can't be served is refused with one
// error that names every fault, and nothing is touched. When ctx ends, a directory
// that is being made is finished or undone, and nothing else begins.
func (p *Provisioner) Provision(ctx context.Context, options controller.ProvisionOptions) (*v1.PersistentVolume, controller.ProvisioningState, error) {
	if !p.enter(options.PVName) {
		return nil, controller.ProvisioningNoChange, errStopping
	}
	defer p.leave(options.PVName)
	r, err := p.request(options)
	if err != nil {
		// Before the share was reached: whatever an earlier attempt began, stands.
		p.options.Note(string(options.PVC.UID), refused)
		return nil, controller.ProvisioningNoChange, err
	}
	logger := klog.FromContext(ctx).WithValues("volume", options.PVName, "claim", klog.KObj(options.PVC), "share", r.class.Share.String())
	if len(r.class.Ignored) > 0 {
		logger.V(2).Info("The class has parameters that mean nothing here", "class", options.StorageClass.Name, "parameters", r.class.Ignored)
	}
	started := time.Now()
	created, err := p.create(ctx, r)
	p.noteBusy(string(options.PVC.UID), err)
	p.noteConflict(err)
	switch {
	case errors.Is(err, dirs.ErrUntouched) && (ctx.Err() != nil || p.options.Lease() != nil):
		return nil, controller.ProvisioningNoChange, errStopping
	case errors.Is(err, dirs.ErrUntouched):
		return nil, controller.ProvisioningNoChange, err
	case err != nil:
		// The directory may be there, or appear late. The controller then goes on
		// even if the claim is deleted, so that it is made, saved and removed again.
		return nil, controller.ProvisioningInBackground, err
	}
	fault.Point("provisioned")
	logger.Info("Made the volume directory", "subDir", r.SubDir, "existed", !created.Made, "duration", time.Since(started))
	return p.persistentVolume(r, created.ShareID, options), controller.ProvisioningFinished, nil
}

// create makes the directory, unless a volume that still exists has that place.
func (p *Provisioner) create(ctx context.Context, r request) (dirs.Created, error) {
	ref, err := p.ref(ctx, r.class.Share, r.class.MountOptions, r.ProvisionerSecret)
	if err != nil {
		return dirs.Created{}, fmt.Errorf("%w: %w", dirs.ErrUntouched, err)
	}
	place := volume.Directory{Share: r.class.Share, SubDir: r.SubDir}
	if err := p.checkFree(ctx, place, r.name, r.class.OnDelete == volume.Retain); err != nil {
		return dirs.Created{}, fmt.Errorf("%w: %w", dirs.ErrUntouched, err)
	}
	return p.options.Shares.Create(ctx, ref, dirs.Create{
		SubDir:  r.SubDir,
		Owner:   dirs.Owner{Cluster: p.options.Cluster, Volume: r.name},
		ShareID: p.options.Caches.shareID(r.class.Share),
		Retain:  r.class.OnDelete == volume.Retain,
		Mode:    r.class.Mode,
		UID:     r.class.UID,
		GID:     r.class.GID,
	})
}

func (p *Provisioner) noteBusy(item string, err error) {
	if errors.Is(err, share.ErrBusy) {
		p.options.Note(item, busy)
	}
}

// noteConflict has the records looked through some time: the volume in the way may be
// one that nobody has deleted in order.
func (p *Provisioner) noteConflict(err error) {
	if errors.Is(err, dirs.ErrConflict) {
		select {
		case p.conflicts <- struct{}{}:
		default: // there is one waiting
		}
	}
}

// Drain lets no new call begin and waits until those that run have ended or ctx has.
func (p *Provisioner) Drain(ctx context.Context) error {
	p.mu.Lock()
	p.draining = true
	p.mu.Unlock()
	done := make(chan struct{})
	go func() {
		p.idle.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("some calls have not ended: %w", ctx.Err())
	}
}

// enter begins work on a volume, unless the provisioner stops or is not the one to work.
func (p *Provisioner) enter(name string) bool {
	if p.options.Lease() != nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.draining {
		return false
	}
	p.idle.Add(1)
	p.working[name]++
	return true
}

func (p *Provisioner) leave(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.working[name]--; p.working[name] == 0 {
		delete(p.working, name)
	}
	p.idle.Done()
}

// shared reports whether another call than the caller's works on the volume.
func (p *Provisioner) shared(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.working[name] > 1
}
