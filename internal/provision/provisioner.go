// Package provision turns claims into PersistentVolumes and takes volumes away
// again: it is the Provisioner of sig-storage-lib-external-provisioner and the
// controller around it.
package provision

import (
	"context"
	"errors"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v8/controller"

	"sharevol.dev/sharevol/internal/fault"
	"sharevol.dev/sharevol/internal/share"
	"sharevol.dev/sharevol/internal/share/dirs"
	"sharevol.dev/sharevol/internal/share/operation"
	"sharevol.dev/sharevol/internal/volume"
)

// Options of a Provisioner.
type Options struct {
	// DriverName is the CSI driver of the volumes.
	DriverName string
	// Adopted are the provisioners of in-tree NFS volumes whose claims and volumes
	// are served too.
	Adopted []volume.Adoption
	// Workers is how many claims, and how many deletions, are worked on at a time for
	// all names together. Zero is no limit; the controllers have one each.
	Workers int
	// DefaultOnDelete is for classes that name no policy.
	DefaultOnDelete volume.OnDelete
	// Cluster is the UID of the namespace kube-system: who the records on a share
	// say made a directory.
	Cluster string
	// Shares does the directory work.
	Shares share.Doer
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

// Provisioner makes and removes the volumes of one provisioner's name. Its methods
// may be called concurrently.
type Provisioner struct {
	options   Options
	format    format
	formats   []format // of all names, the driver's first
	calls     *calls   // of all names
	servers   *servers
	conflicts chan struct{} // gets one when a record on a share keeps something waiting
}

var (
	_ controller.Provisioner   = (*Provisioner)(nil)
	_ controller.Qualifier     = (*Provisioner)(nil)
	_ controller.DeletionGuard = (*Provisioner)(nil)
)

// New returns the Provisioner of the driver's own name.
func New(options Options) *Provisioner {
	if options.Lease == nil {
		options.Lease = func() error { return nil }
	}
	if options.Note == nil {
		options.Note = func(string, failure) {}
	}
	formats := []format{csiFormat{driver: options.DriverName, onDelete: options.DefaultOnDelete}}
	for _, adoption := range options.Adopted {
		formats = append(formats, nfsFormat{Adoption: adoption, class: options.Caches.classNamed})
	}
	return &Provisioner{
		options: options, format: formats[0], formats: formats, calls: newCalls(options.Workers),
		servers: newServers(), conflicts: make(chan struct{}, 1),
	}
}

// as returns the Provisioner of another name, with the same shares, limits and end.
func (p *Provisioner) as(f format, note func(string, failure)) *Provisioner {
	other := *p
	other.format, other.options.Note = f, note
	return &other
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
	parsed, _ := p.format.parseClass(class.Parameters, nil)
	return parsed.Share == (volume.Share{}) || p.options.Shares.Serves(parsed.Share)
}

// ShouldDelete is the same for volumes.
func (p *Provisioner) ShouldDelete(_ context.Context, pv *v1.PersistentVolume) bool {
	vol, err := p.format.read(pv)
	return err != nil || p.options.Shares.Serves(vol.Share)
}

// Provision makes the claim's directory and returns its PersistentVolume, which
// the controller saves. A class or claim that can't be served is refused with one
// error that names every fault, and nothing is touched. When ctx ends, a directory
// that is being made is finished or undone, and nothing else begins.
func (p *Provisioner) Provision(ctx context.Context, options controller.ProvisionOptions) (*v1.PersistentVolume, controller.ProvisioningState, error) {
	if !p.enter(ctx, options.PVName, p.calls.provisions) {
		return nil, controller.ProvisioningNoChange, errStopping
	}
	defer p.calls.leave(options.PVName, p.calls.provisions)
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
	p.noteShare(string(options.PVC.UID), err)
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
	return share.Do(ctx, p.options.Shares, ref, operation.Create, dirs.Create{
		SubDir:  r.SubDir,
		Owner:   dirs.Owner{Cluster: p.options.Cluster, Volume: r.name},
		ShareID: p.options.Caches.shareID(r.class.Share),
		Retain:  r.class.OnDelete == volume.Retain,
		Mode:    r.class.Mode,
		UID:     r.class.UID,
		GID:     r.class.GID,
	})
}

// noteShare has item tried again when its share may have time, or is back.
func (p *Provisioner) noteShare(item string, err error) {
	switch {
	case errors.Is(err, share.ErrBusy):
		p.options.Note(item, busy)
	case errors.Is(err, share.ErrSetAside):
		p.options.Note(item, aside)
	}
}

// noteConflict has the records looked through some time: the volume in the way, of a
// claim or of a foreign volume that is to go, may be one that nobody has deleted in order.
func (p *Provisioner) noteConflict(err error) {
	if errors.Is(err, dirs.ErrConflict) {
		select {
		case p.conflicts <- struct{}{}:
		default: // there is one waiting
		}
	}
}
