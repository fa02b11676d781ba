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

// Provisioner makes and removes the volumes of one provisioner's name. Its methods
// may be called concurrently.
type Provisioner struct {
	options Options
	format  format
	formats []format // of all names, the driver's first
	calls   *calls   // of all names
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
	return &Provisioner{options: options, format: formats[0], formats: formats, calls: newCalls(options.Workers)}
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
	p.noteBusy(string(options.PVC.UID), err)
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
	if r.class.OnDelete != volume.Retain {
		place := volume.Directory{Share: r.class.Share, SubDir: r.SubDir}
		if err := p.checkPlace(ctx, place, "", r.name, p.options.Caches.at); err != nil {
			return dirs.Created{}, fmt.Errorf("%w: %w", dirs.ErrUntouched, err)
		}
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

// Delete does with the directory of pv what pv says: removes it, moves it aside or
// leaves it. It refuses every PersistentVolume that neither this provisioner nor one
// that it stands in for can have made, and one whose directory another volume uses
// too. It stops when ctx ends; a repeated call resumes.
func (p *Provisioner) Delete(ctx context.Context, pv *v1.PersistentVolume) error {
	if !p.enter(ctx, pv.Name, p.calls.deletions) {
		return errStopping
	}
	defer p.calls.leave(pv.Name, p.calls.deletions)
	vol, err := p.format.read(pv)
	if err != nil {
		return fmt.Errorf("%w: the directory is left as it is", err)
	}
	if vol.foreign && p.calls.isFinished(pv.Name, pv.UID) {
		// The controller asks again until the volume is gone. What has come to its place
		// meanwhile is not the volume's, and no record on the share would tell.
		return nil
	}
	logger := klog.FromContext(ctx).WithValues("volume", pv.Name, "share", vol.Share.String(), "subDir", vol.SubDir)
	started := time.Now()
	err = p.carryOut(klog.NewContext(ctx, logger), vol, pv)
	p.noteBusy(pv.Name, err)
	switch {
	case err != nil && (ctx.Err() != nil || p.options.Lease() != nil):
		return errStopping
	case err != nil:
		return err
	}
	if vol.foreign {
		p.calls.finish(pv.Name, pv.UID, p.options.Caches.hasVolume)
	}
	fault.Point("directory-gone")
	logger.Info("Done with the volume directory", "onDelete", vol.OnDelete, "duration", time.Since(started))
	return nil
}

func (p *Provisioner) noteBusy(item string, err error) {
	if errors.Is(err, share.ErrBusy) {
		p.options.Note(item, busy)
	}
}

func (p *Provisioner) carryOut(ctx context.Context, vol existing, pv *v1.PersistentVolume) error {
	target := dirs.Target{
		SubDir:  vol.SubDir,
		Owner:   dirs.Owner{Cluster: p.options.Cluster, Volume: pv.Name},
		ShareID: pv.Annotations[annShareID],
		Foreign: vol.foreign,
	}
	if vol.foreign {
		if vol.OnDelete == volume.Retain {
			return ctx.Err() // nothing is recorded of it
		}
		target.ShareID = p.options.Caches.shareID(vol.Share)
	}
	ref, err := p.ref(ctx, vol.Share, vol.mountOptions, deletionSecret(pv))
	if vol.OnDelete == volume.Retain {
		if err == nil {
			err = p.options.Shares.Release(ctx, ref, target)
		}
		if err != nil && ctx.Err() == nil {
			// Nothing is to be done with the data. A record that stays is dropped by a later start.
			klog.FromContext(ctx).Info("The directory is kept; its record on the share could not be dropped", "reason", err.Error())
		}
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	if err := p.checkPlace(ctx, vol.Directory, target.ShareID, pv.Name, p.options.Caches.around); err != nil {
		return fmt.Errorf("%w: the directory is left as it is", err)
	}
	var archive string
	if vol.OnDelete == volume.Delete {
		err = p.options.Shares.Delete(ctx, ref, target)
	} else {
		archive, err = p.options.Shares.Archive(ctx, ref, target)
	}
	switch {
	case errors.Is(err, dirs.ErrTaken) && !vol.foreign:
		// The last attempt got to its end, but the volume could not be told so, and
		// somebody has waited for the place: a claim of another cluster.
		klog.FromContext(ctx).Info("Nothing is left of the volume; its place is another one's now", "reason", err.Error())
		return nil
	case err == nil && archive != "":
		klog.FromContext(ctx).V(2).Info("Moved the volume directory aside", "archive", archive)
	}
	return err
}
