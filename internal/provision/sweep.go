package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"

	"sharevol.dev/sharevol/internal/cluster"
	"sharevol.dev/sharevol/internal/share"
	"sharevol.dev/sharevol/internal/share/dirs"
	"sharevol.dev/sharevol/internal/share/operation"
	"sharevol.dev/sharevol/internal/volume"
)

const (
	// recordsRetry is how long a share that could not be looked through is left alone
	// at first.
	recordsRetry = time.Minute
	// sweepEvery is how often the records are looked through at most: of a large share
	// that takes thousands of requests.
	sweepEvery = 10 * time.Minute
)

// VolumePrefix begins the names of provisioned PersistentVolumes; the UID of the
// claim follows.
const VolumePrefix = "pvc-"

// DropRecords looks through this cluster's records on every share that a class or
// volume names, and drops those that have neither a PersistentVolume nor a claim:
// what a crash left between a record and a saved volume whose claim was deleted
// meanwhile, or somebody who deleted a volume by hand. Their directories go only if
// they are empty and no volume's data is around them. It does so at once, and again
// some time after a record has kept something waiting. A share that can't be looked
// through is tried again, ever more rarely. It returns when ctx ends.
func (p *Provisioner) DropRecords(ctx context.Context) {
	if !p.options.Cluster.Filled(ctx) {
		return
	}
	due, pause, retry := p.refs(ctx), recordsRetry, time.NewTimer(0)
	defer retry.Stop()
	rested := time.NewTimer(sweepEvery)
	defer rested.Stop()
	var conflicts <-chan struct{} // nothing until rested
	for {
		select {
		case <-retry.C:
			if due = p.sweep(ctx, due); len(due) > 0 {
				retry.Reset(pause)
				pause = min(2*pause, sweepEvery)
			}
		case <-rested.C:
			conflicts = p.conflicts
		case <-conflicts:
			due, pause, conflicts = p.refs(ctx), recordsRetry, nil
			retry.Reset(0)
			rested.Reset(sweepEvery)
		case <-ctx.Done():
			return
		}
	}
}

// sweep looks once through the records of shares. It returns those that are to be
// tried again.
func (p *Provisioner) sweep(ctx context.Context, refs []share.Ref) []share.Ref {
	return slices.DeleteFunc(refs, func(ref share.Ref) bool {
		err := p.dropRecordsOn(ctx, ref)
		if err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).V(2).Info("Could not look through the records of a share; will try again", "share", ref.Share.String(), "reason", err.Error())
		}
		return err == nil
	})
}

// refs returns each share that a class or volume of ours names, with one way to mount it.
func (p *Provisioner) refs(ctx context.Context) []share.Ref {
	known := map[volume.Share]bool{}
	var refs []share.Ref
	add := func(s volume.Share, options []string, secret *volume.SecretRef) {
		if known[s] || s == (volume.Share{}) || !p.options.Shares.Serves(s) {
			return
		}
		if ref, err := p.ref(ctx, s, options, secret); err == nil {
			known[s] = true
			refs = append(refs, ref)
		}
	}
	formats := p.options.Cluster.Formats()
	for _, pv := range p.options.Cluster.AllVolumes() {
		if vol, err := formats.Read(pv); err == nil {
			add(vol.Share, vol.MountOptions, cluster.DeletionSecret(pv))
		}
	}
	for _, f := range formats {
		for _, class := range p.options.Cluster.ClassesOf(f.Provisioner()) {
			// Which secret a class uses can depend on the claim. Without it the share's
			// records wait for a volume that names it.
			if parsed, errs := f.ReadClass(class.Parameters, class.MountOptions); len(errs) == 0 && parsed.ProvisionerSecret == nil {
				add(parsed.Share, class.MountOptions, nil)
			}
		}
	}
	return refs
}

func (p *Provisioner) dropRecordsOn(ctx context.Context, ref share.Ref) error {
	records, err := share.Do(ctx, p.options.Shares, ref, operation.Records, p.options.ClusterID)
	if err != nil || len(records) == 0 {
		return err
	}
	var orphans []dirs.Record
	claims := p.options.Cluster.ClaimUIDs()
	for _, record := range records {
		pv := p.options.Cluster.Volume(record.Owner.Volume)
		switch {
		case pv != nil && p.isOf(record, ref.Share, pv):
		case pv == nil && claims[strings.TrimPrefix(record.Owner.Volume, VolumePrefix)]: // it may be made right now
		default:
			orphans = append(orphans, record)
		}
	}
	if len(orphans) == 0 {
		return nil
	}
	// A cache may lag behind what the last leader did: only the API server decides.
	live, err := p.liveClaimUIDs(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, record := range orphans {
		errs = append(errs, p.dropRecord(ctx, ref, record, live[strings.TrimPrefix(record.Owner.Volume, VolumePrefix)]))
	}
	return errors.Join(errs...)
}

// isOf reports whether a record on a share is that of the directory that a volume has.
// A first attempt for the volume may have made another one, before its claim changed.
func (p *Provisioner) isOf(record dirs.Record, s volume.Share, pv *v1.PersistentVolume) bool {
	vol, err := p.options.Cluster.Formats().Read(pv)
	// What can't be read is left alone; so is a record on the share under another name.
	return err != nil || vol.SubDir == record.SubDir || !cluster.SameShare(vol.Share, s)
}

// dropRecord drops a record, unless its volume exists, or may be made at the moment
// because it is claimed.
func (p *Provisioner) dropRecord(ctx context.Context, ref share.Ref, record dirs.Record, claimed bool) error {
	name := record.Owner.Volume
	if !p.enter(name) {
		return ErrStopping
	}
	defer p.calls.leave(name)
	if p.calls.shared(name) {
		return fmt.Errorf("volume %s is being worked on", name)
	}
	pv, err := p.options.Client.CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err) && claimed, err == nil && p.isOf(record, ref.Share, pv):
		return nil
	case err != nil && !apierrors.IsNotFound(err):
		return err
	}
	logger := klog.FromContext(ctx).WithValues("volume", name, "share", ref.Share.String(), "subDir", record.SubDir)
	target := record.Target()
	switch used := p.options.Cluster.CheckAlone(ctx, volume.Directory{Share: ref.Share, SubDir: record.SubDir}, target.ShareID, name); {
	case errors.Is(used, cluster.ErrInUse):
		// A hand-made volume may have taken the directory over, and be empty at the moment.
		if _, err = share.Do(ctx, p.options.Shares, ref, operation.Release, target); err == nil {
			logger.Info("Dropped the record of a volume that is gone; its directory stays", "reason", used.Error())
		}
		return err
	case used != nil:
		return used
	}
	if _, err = share.Do(ctx, p.options.Shares, ref, operation.Drop, target); err == nil {
		logger.Info("Dropped the record of a volume that is gone or was never saved; its directory is gone if it was empty")
	}
	return err
}

// liveClaimUIDs returns the UIDs of all claims, as the API server has them now.
func (p *Provisioner) liveClaimUIDs(ctx context.Context) (map[string]bool, error) {
	list, err := p.options.Client.CoreV1().PersistentVolumeClaims(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	uids := make(map[string]bool, len(list.Items))
	for _, claim := range list.Items {
		uids[string(claim.UID)] = true
	}
	return uids, nil
}
