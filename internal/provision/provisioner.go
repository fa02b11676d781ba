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
	"k8s.io/klog/v2"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v8/controller"

	"sharevol.dev/sharevol/internal/share"
	"sharevol.dev/sharevol/internal/volume"
)

// directoryMode is the mode of a new volume directory: pods of any user write to
// it, as with csi-driver-nfs and nfs-subdir-external-provisioner.
const directoryMode = 0o777

// Shares does the directory work. Both methods are idempotent; see share.Manager.
type Shares interface {
	Create(ctx context.Context, ref share.Ref, dir volume.SubDir, mode uint32) error
	Remove(ctx context.Context, ref share.Ref, dir volume.SubDir) error
}

// Provisioner makes and removes the volumes of one driver. Its methods may be
// called concurrently.
type Provisioner struct {
	driverName string
	shares     Shares

	mu       sync.Mutex
	draining bool
	running  sync.WaitGroup
}

var _ controller.Provisioner = (*Provisioner)(nil)

// New returns a Provisioner whose volumes are served by the CSI driver driverName.
func New(driverName string, shares Shares) *Provisioner {
	return &Provisioner{driverName: driverName, shares: shares}
}

// errStopping ends a call without an event on the claim or volume: the next start
// takes it up. The controller finds it only unwrapped.
var errStopping = &controller.IgnoredError{Reason: "the provisioner is stopping; its next start takes this up"}

// Provision makes the claim's directory and returns its PersistentVolume, which
// the controller saves. A class or claim that can't be served is refused with one
// error that names every fault, and nothing is touched. When ctx ends, a directory
// that is being made is finished, and nothing else begins.
func (p *Provisioner) Provision(ctx context.Context, options controller.ProvisionOptions) (*v1.PersistentVolume, controller.ProvisioningState, error) {
	if !p.enter() {
		return nil, controller.ProvisioningNoChange, errStopping
	}
	defer p.running.Done()

	vol, errs := volume.ParseClass(options.StorageClass.Parameters, options.StorageClass.MountOptions)
	errs = append(errs, checkClaim(options.PVC)...)
	dir, err := volume.ParseSubDir(options.PVName)
	if len(errs) > 0 || err != nil {
		// Before the share was reached: whatever an earlier attempt began, stands.
		return nil, controller.ProvisioningNoChange, errors.Join(refusal(errs), err)
	}
	vol.SubDir = dir

	logger := klog.FromContext(ctx).WithValues("volume", options.PVName, "claim", klog.KObj(options.PVC), "share", vol.Share.String())
	started := time.Now()
	err = p.shares.Create(ctx, share.Ref{Share: vol.Share, MountOptions: options.StorageClass.MountOptions}, dir, directoryMode)
	switch {
	case errors.Is(err, share.ErrUntouched) && ctx.Err() != nil:
		return nil, controller.ProvisioningNoChange, errStopping
	case errors.Is(err, share.ErrUntouched):
		return nil, controller.ProvisioningNoChange, err
	case err != nil:
		// The directory may be there, or appear late. The controller then goes on
		// even if the claim is deleted, so that it is made, saved and removed again.
		return nil, controller.ProvisioningInBackground, err
	}
	logger.V(2).Info("Made the volume directory", "subDir", dir, "duration", time.Since(started))
	return p.persistentVolume(vol, options), controller.ProvisioningFinished, nil
}

// Delete removes the directory of pv, or leaves it where pv says retain. It
// refuses every PersistentVolume that this provisioner can't have made. It stops
// when ctx ends; a repeated call resumes a removal.
func (p *Provisioner) Delete(ctx context.Context, pv *v1.PersistentVolume) error {
	if !p.enter() {
		return errStopping
	}
	defer p.running.Done()
	vol, err := p.volumeOf(pv)
	if err != nil {
		return fmt.Errorf("%w: the directory is left as it is", err)
	}
	logger := klog.FromContext(ctx).WithValues("volume", pv.Name, "share", vol.Share.String(), "subDir", vol.SubDir)
	if vol.OnDelete == volume.Retain {
		logger.V(2).Info("Kept the volume directory, as its class says")
		return nil
	}
	started := time.Now()
	err = p.shares.Remove(ctx, share.Ref{Share: vol.Share, MountOptions: pv.Spec.MountOptions}, vol.SubDir)
	switch {
	case err != nil && ctx.Err() != nil:
		return errStopping
	case err != nil:
		return err
	}
	logger.V(2).Info("Removed the volume directory", "duration", time.Since(started))
	return nil
}

// Drain lets no new call begin and waits until those that run have ended or ctx has.
func (p *Provisioner) Drain(ctx context.Context) error {
	p.mu.Lock()
	p.draining = true
	p.mu.Unlock()
	done := make(chan struct{})
	go func() {
		p.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("some calls have not ended: %w", ctx.Err())
	}
}

func (p *Provisioner) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.draining {
		p.running.Add(1)
	}
	return !p.draining
}
