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
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"sharevol.dev/sharevol/internal/share"
	"sharevol.dev/sharevol/internal/share/dirs"
	"sharevol.dev/sharevol/internal/volume"
)

// recordsRetry is how long a share that could not be looked through is left alone.
const recordsRetry = time.Minute

// volumePrefix begins the names of provisioned PersistentVolumes; the UID of the
// claim follows.
const volumePrefix = "pvc-"

// DropRecords looks once through this cluster's records on every share that a class
// or volume names, and drops those that have neither a PersistentVolume nor a claim:
// what a crash left between a record and a saved volume whose claim was deleted
// meanwhile. Their directories go only if they are empty. A share that does not
// answer is tried again until ctx ends.
func (p *Provisioner) DropRecords(ctx context.Context) {
	c := p.options.Caches
	if !cache.WaitForCacheSync(ctx.Done(), c.volumes.HasSynced, c.claims.HasSynced, c.classes.HasSynced) {
		return
	}
	pending := p.refs(ctx)
	for {
		pending = slices.DeleteFunc(pending, func(ref share.Ref) bool {
			err := p.dropRecordsOn(ctx, ref)
			if err != nil && ctx.Err() == nil {
				klog.FromContext(ctx).V(2).Info("Could not look through the records of a share; will try again", "share", ref.Share.String(), "reason", err.Error())
			}
			return err == nil
		})
		if len(pending) == 0 {
			return
		}
		select {
		case <-time.After(recordsRetry):
		case <-ctx.Done():
			return
		}
	}
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
	for _, object := range p.options.Caches.volumes.GetStore().List() {
		pv, ok := object.(*v1.PersistentVolume)
		if !ok {
			continue
		}
		for _, f := range p.formats {
			if vol, err := f.read(pv); err == nil && isOf(f, pv) {
				add(vol.Share, vol.mountOptions, deletionSecret(pv))
			}
		}
	}
	for _, f := range p.formats {
		for _, class := range p.options.Caches.ownClasses(f.name()) {
			// Which secret a class uses can depend on the claim. Without it the share's
			// records wait for a volume that names it.
			if parsed, errs := f.parseClass(class.Parameters, class.MountOptions); len(errs) == 0 && parsed.ProvisionerSecret == nil {
				add(parsed.Share, class.MountOptions, nil)
			}
		}
	}
	return refs
}

// isOf reports whether pv is a volume of the provisioner's name of f. An in-tree one
// tells only by its annotation; for a CSI volume its driver is enough.
func isOf(f format, pv *v1.PersistentVolume) bool {
	return pv.Spec.CSI != nil || pv.Annotations[annProvisionedBy] == f.name()
}

func (p *Provisioner) dropRecordsOn(ctx context.Context, ref share.Ref) error {
	records, err := p.options.Shares.Records(ctx, ref, p.options.Cluster)
	if err != nil || len(records) == 0 {
		return err
	}
	var orphans []dirs.Record
	claims := p.options.Caches.claimUIDs()
	for _, record := range records {
		_, exists, _ := p.options.Caches.volumes.GetStore().GetByKey(record.Owner.Volume)
		if !exists && !claims[strings.TrimPrefix(record.Owner.Volume, volumePrefix)] {
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
		if !live[strings.TrimPrefix(record.Owner.Volume, volumePrefix)] {
			errs = append(errs, p.dropRecord(ctx, ref, record))
		}
	}
	return errors.Join(errs...)
}

func (p *Provisioner) dropRecord(ctx context.Context, ref share.Ref, record dirs.Record) error {
	name := record.Owner.Volume
	if !p.enter(ctx, name, nil) {
		return errStopping
	}
	defer p.calls.leave(name, nil)
	if p.calls.shared(name) {
		return fmt.Errorf("volume %s is being worked on", name)
	}
	_, err := p.options.Client.CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
	if err == nil || !apierrors.IsNotFound(err) {
		return err
	}
	err = p.options.Shares.Drop(ctx, ref, record.Target())
	if err == nil {
		klog.FromContext(ctx).Info("Dropped the record of a volume that was never saved; its directory is gone if it was empty",
			"volume", name, "share", ref.Share.String(), "subDir", record.SubDir)
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
