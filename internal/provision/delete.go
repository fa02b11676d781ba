package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"k8s.io/klog/v2"

	"sharevol.dev/sharevol/internal/cluster"
	"sharevol.dev/sharevol/internal/fault"
	"sharevol.dev/sharevol/internal/share"
	"sharevol.dev/sharevol/internal/share/dirs"
	"sharevol.dev/sharevol/internal/share/operation"
	"sharevol.dev/sharevol/internal/volume"
)

// ErrGone says that there is no PersistentVolume any more: nobody asks for anything.
var ErrGone = errors.New("the PersistentVolume no longer exists")

// Delete does with the directory of pv, whose format is f, what pv says: removes it, moves
// it aside or leaves it. Then it deletes pv, whatever finalizers of others may hold it. It
// refuses every PersistentVolume that neither this provisioner nor one that it stands in
// for can have made, and one whose directory another volume uses too. ErrGone and
// ErrStopping are nobody's fault. It stops when ctx ends; a repeated call resumes.
func (p *Provisioner) Delete(ctx context.Context, f cluster.Format, pv *v1.PersistentVolume) error {
	if !p.enter(pv.Name) {
		return ErrStopping
	}
	defer p.calls.leave(pv.Name)
	vol, err := f.Read(pv)
	if err != nil {
		return fmt.Errorf("%w: the directory is left as it is", err)
	}
	logger := klog.FromContext(ctx).WithValues("volume", pv.Name, "share", vol.Share.String(), "subDir", vol.SubDir)
	started := time.Now()
	last, err := p.carryOut(klog.NewContext(ctx, logger), vol, pv)
	if vol.Adopted {
		p.noteConflict(err)
	}
	if err == nil {
		fault.Point("directory-gone")
		err = p.deletePV(ctx, pv, last)
	}
	switch {
	case err == nil:
		logger.Info("PersistentVolume deleted", "onDelete", vol.OnDelete, "duration", time.Since(started))
	case errors.Is(err, ErrGone):
		logger.Info("PersistentVolume no longer exists; nothing to do")
	case ctx.Err() != nil || p.options.Fence() != nil:
		return ErrStopping
	}
	return err
}

// Finalizer is what the controller library puts on PersistentVolumes.
const Finalizer = "external-provisioner.volume.kubernetes.io/finalizer"

// deleteAttempts bounds how often a PersistentVolume that others change meanwhile is
// deleted anew; the queue tries again later.
const deleteAttempts = 5

// deletePV deletes pv, whose directory is done with, only as it was seen last: somebody
// may have given it to another claim since. When it has changed, it is confirmed anew.
// Finalizers of others stay, and so does the PersistentVolume until they are gone.
func (p *Provisioner) deletePV(ctx context.Context, pv, last *v1.PersistentVolume) error {
	err := p.deleteAsSeen(ctx, last)
	for attempt := 1; apierrors.IsConflict(err) && attempt < deleteAttempts; attempt++ {
		if last, err = p.confirm(ctx, pv); err != nil {
			return err
		}
		err = p.deleteAsSeen(ctx, last)
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("the directory is done with, but PersistentVolume %s can't be deleted: %w", pv.Name, err)
	}
	return nil
}

// deleteAsSeen deletes a PersistentVolume if it is still what was seen.
func (p *Provisioner) deleteAsSeen(ctx context.Context, seen *v1.PersistentVolume) error {
	if seen.DeletionTimestamp == nil {
		only := metav1.Preconditions{UID: &seen.UID, ResourceVersion: &seen.ResourceVersion}
		if err := p.options.Client.CoreV1().PersistentVolumes().Delete(ctx, seen.Name, metav1.DeleteOptions{Preconditions: &only}); err != nil {
			return err
		}
	}
	if !slices.Contains(seen.Finalizers, Finalizer) {
		return nil
	}
	return p.dropFinalizer(ctx, seen)
}

// dropFinalizer takes our finalizer off pv, whatever else has changed there.
func (p *Provisioner) dropFinalizer(ctx context.Context, pv *v1.PersistentVolume) error {
	patch := fmt.Appendf(nil, `{"metadata":{"uid":%q,"$deleteFromPrimitiveList/finalizers":[%q]}}`, pv.UID, Finalizer)
	_, err := p.options.Client.CoreV1().PersistentVolumes().Patch(ctx, pv.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	return err
}

// carryOut does with a volume's directory what its policy says. It returns the volume as
// it was seen last, if that is not an error.
func (p *Provisioner) carryOut(ctx context.Context, vol cluster.Existing, pv *v1.PersistentVolume) (last *v1.PersistentVolume, err error) {
	target := dirs.Target{
		SubDir:  vol.SubDir,
		Owner:   dirs.Owner{Cluster: p.options.ClusterID, Volume: pv.Name},
		ShareID: pv.Annotations[cluster.AnnShareID],
		Foreign: vol.Adopted,
	}
	if vol.Adopted {
		if vol.OnDelete == volume.Retain {
			return pv, ctx.Err() // nothing is recorded of it
		}
		if last, err = p.isGone(ctx, pv); last != nil || err != nil {
			return last, err
		}
		target.ShareID = p.options.Cluster.ShareID(vol.Share)
	}
	ref, err := p.deletionRef(ctx, vol, pv)
	if vol.OnDelete == volume.Retain {
		return pv, p.release(ctx, ref, target, err)
	}
	if err != nil {
		return nil, err
	}
	if err = p.options.Cluster.CheckAlone(ctx, vol.Directory, target.ShareID, pv.Name); err == nil {
		err = p.options.Cluster.CheckNoShare(ctx, vol.Directory)
	}
	// Last of all, and also where another volume is in the way: the cache shows a volume for
	// a moment after its deletion, when its place may be another's already.
	last, confirmErr := p.confirm(ctx, pv)
	if err == nil || errors.Is(confirmErr, ErrGone) {
		err = confirmErr
	}
	if err != nil {
		return nil, fmt.Errorf("%w: the directory is left as it is", err)
	}
	err = p.dispose(ctx, vol.OnDelete, ref, target)
	if err == nil && vol.Adopted {
		p.calls.finish(pv.Name, pv.UID, p.options.Cluster.HasVolume)
		last, err = p.noteGone(ctx, pv)
	}
	return last, err
}

// isGone returns a foreign volume if its directory is gone already, nil otherwise. The
// controller asks again until the volume is gone, too. What has come to its place
// meanwhile is not the volume's, and no record on the share would tell.
func (p *Provisioner) isGone(ctx context.Context, pv *v1.PersistentVolume) (*v1.PersistentVolume, error) {
	live, err := p.confirm(ctx, pv)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: the directory is left as it is", err)
	case live.Annotations[cluster.AnnDirectoryGone] != "":
		return live, nil
	case p.calls.isFinished(pv.Name, pv.UID):
		return p.noteGone(ctx, pv)
	}
	return nil, nil
}

// dispose removes the directory or moves it aside.
func (p *Provisioner) dispose(ctx context.Context, policy volume.OnDelete, ref share.Ref, target dirs.Target) error {
	var archive string
	var err error
	if policy == volume.Delete {
		_, err = share.Do(ctx, p.options.Shares, ref, operation.Delete, target)
	} else {
		archive, err = share.Do(ctx, p.options.Shares, ref, operation.Archive, target)
	}
	switch {
	case errors.Is(err, dirs.ErrTaken):
		// The last attempt removed the directory, but did not get to delete the PersistentVolume,
		// and a claim of another cluster has taken the place since.
		klog.FromContext(ctx).Info("Volume directory already deleted; another volume has its place now", "reason", err.Error())
		return nil
	case err == nil && archive != "":
		klog.FromContext(ctx).V(2).Info("Volume directory archived", "archive", archive)
	}
	return err
}

// release drops the record of a volume whose directory stays, if the way to its share
// is known. Nothing is to be done with the data: only a share that is busy is waited for.
// A record that stays is dropped by a later sweep.
func (p *Provisioner) release(ctx context.Context, ref share.Ref, target dirs.Target, err error) error {
	if err == nil {
		_, err = share.Do(ctx, p.options.Shares, ref, operation.Release, target)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, share.ErrBusy):
		return err
	case err != nil:
		klog.FromContext(ctx).Info("The directory is kept; its record on the share could not be dropped", "reason", err.Error())
	}
	return nil
}

// confirm asks the API server whether pv is to go still, and returns it as it is now:
// what the controller goes by is a cache, and somebody may have decided to keep the
// volume, or have released it by hand, a moment ago.
func (p *Provisioner) confirm(ctx context.Context, pv *v1.PersistentVolume) (*v1.PersistentVolume, error) {
	live, err := p.options.Client.CoreV1().PersistentVolumes().Get(ctx, pv.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, ErrGone
	case err != nil:
		return nil, fmt.Errorf("can't tell whether the volume is to be deleted still: %w", err)
	case live.UID != pv.UID:
		return nil, fmt.Errorf("PersistentVolume %s was deleted and recreated", pv.Name)
	case live.Status.Phase != pv.Status.Phase, claimedBy(live) != claimedBy(pv):
		return nil, fmt.Errorf("the volume is %s by now, for the claim %q", live.Status.Phase, claimedBy(live))
	case live.Spec.PersistentVolumeReclaimPolicy != v1.PersistentVolumeReclaimDelete:
		return nil, fmt.Errorf("the volume's reclaim policy is %s by now", live.Spec.PersistentVolumeReclaimPolicy)
	}
	return live, nil
}

// claimedBy returns the UID of the claim that a volume is or was bound to.
func claimedBy(pv *v1.PersistentVolume) types.UID {
	if pv.Spec.ClaimRef == nil {
		return ""
	}
	return pv.Spec.ClaimRef.UID
}

// noteGone notes on a foreign volume that its directory is gone, and returns it with that.
func (p *Provisioner) noteGone(ctx context.Context, pv *v1.PersistentVolume) (noted *v1.PersistentVolume, err error) {
	volumes := p.options.Client.CoreV1().PersistentVolumes()
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
		live, err := volumes.Get(ctx, pv.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if live.UID != pv.UID {
			return ErrGone
		}
		metav1.SetMetaDataAnnotation(&live.ObjectMeta, cluster.AnnDirectoryGone, time.Now().UTC().Format(time.RFC3339))
		noted, err = volumes.Update(ctx, live, metav1.UpdateOptions{})
		return err
	})
	switch {
	case apierrors.IsNotFound(err):
		return nil, ErrGone
	case err != nil && !errors.Is(err, ErrGone):
		err = fmt.Errorf("directory deleted, but updating the PersistentVolume failed: %w", err)
	}
	return noted, err
}

// deletionRef returns how to mount the share of a volume that goes. A secret that is
// gone, with the claim's namespace for example, must not keep the volume for ever: the
// volume's own options are tried then.
func (p *Provisioner) deletionRef(ctx context.Context, vol cluster.Existing, pv *v1.PersistentVolume) (share.Ref, error) {
	ref, err := p.ref(ctx, vol.Share, vol.MountOptions, cluster.DeletionSecret(pv))
	if apierrors.IsNotFound(err) {
		klog.FromContext(ctx).Info("Mounting without the options of the provisioner's secret, which is gone", "volume", pv.Name, "reason", err.Error())
		return share.Ref{Share: vol.Share, MountOptions: vol.MountOptions}, nil
	}
	return ref, err
}
