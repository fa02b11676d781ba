// Package provision turns claims into PersistentVolumes and takes PersistentVolumes away
// again, with their directories.
package provision

import (
	"context"
	"errors"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"sharevol.dev/sharevol/internal/cluster"
	"sharevol.dev/sharevol/internal/fault"
	"sharevol.dev/sharevol/internal/share"
	"sharevol.dev/sharevol/internal/share/dirs"
	"sharevol.dev/sharevol/internal/share/operation"
	"sharevol.dev/sharevol/internal/volume"
)

// Options of a Provisioner.
type Options struct {
	// Cluster knows the cluster's volumes, claims and classes.
	Cluster *cluster.Cluster
	// ClusterID is the UID of the namespace kube-system: who the records on a share say
	// made a directory.
	ClusterID string
	// Shares does the directory work.
	Shares share.Doer
	// Client deletes PersistentVolumes, confirms what the caches say and reads secrets.
	Client kubernetes.Interface
	// Fence returns an error while another replica may be at work. Nil means always ours.
	Fence func() error
}

// Provisioner makes and removes volumes. Its methods may be called concurrently.
type Provisioner struct {
	options   Options
	calls     *calls
	conflicts chan struct{} // gets one when a record on a share keeps something waiting
}

// New returns a Provisioner.
func New(options Options) *Provisioner {
	if options.Fence == nil {
		options.Fence = func() error { return nil }
	}
	return &Provisioner{options: options, calls: newCalls(), conflicts: make(chan struct{}, 1)}
}

var (
	// ErrStopping ends a call that is nobody's fault: the next start, or the replica that
	// leads now, takes it up.
	ErrStopping = errors.New("this provisioner is stopping; the next one takes this up")
	// ErrInvalid says that the claim or its class can't be served as it is.
	ErrInvalid = errors.New("invalid")
)

// invalid is an error with the faults of a claim and its class that matches ErrInvalid.
type invalid struct{ error }

// Is reports whether target is ErrInvalid.
func (invalid) Is(target error) bool { return target == ErrInvalid }

// Provision makes the directory that r asks for and returns its PersistentVolume, which
// the caller saves; f is the format of the claim's provisioner name. A class or claim that
// can't be served is refused with one error that names every fault and matches ErrInvalid,
// and nothing is touched. An error that matches share.ErrUntouched left nothing behind;
// after another one the directory may be there, or appear late. When ctx ends, a directory
// that is being made is finished or undone, and nothing else begins.
func (p *Provisioner) Provision(ctx context.Context, f cluster.Format, r Request) (*v1.PersistentVolume, error) {
	if !p.enter(r.Name) {
		return nil, ErrStopping
	}
	defer p.calls.leave(r.Name)
	place, err := r.read(f)
	if err != nil {
		return nil, invalid{err}
	}
	logger := klog.FromContext(ctx).WithValues("volume", r.Name, "claim", klog.KObj(r.Claim), "share", place.class.Share.String())
	if len(place.class.Ignored) > 0 {
		logger.V(2).Info("The class has parameters that mean nothing here", "class", r.Class.Name, "parameters", place.class.Ignored)
	}
	started := time.Now()
	created, err := p.create(ctx, r.Name, place)
	p.noteConflict(err)
	switch {
	case errors.Is(err, dirs.ErrUntouched) && (ctx.Err() != nil || p.options.Fence() != nil):
		return nil, ErrStopping
	case err != nil:
		return nil, err
	}
	fault.Point("provisioned")
	logger.Info("Volume directory created", "subDir", place.SubDir, "existed", !created.Made, "duration", time.Since(started))
	return r.persistentVolume(f, place, created.ShareID), nil
}

// create makes the directory, unless a volume that still exists has that place.
func (p *Provisioner) create(ctx context.Context, name string, at place) (dirs.Created, error) {
	ref, err := p.ref(ctx, at.class.Share, at.class.MountOptions, at.ProvisionerSecret)
	if err != nil {
		return dirs.Created{}, fmt.Errorf("%w: %w", dirs.ErrUntouched, err)
	}
	retain := at.class.OnDelete == volume.Retain
	if err := p.options.Cluster.CheckFree(ctx, at.directory(), name, retain); err != nil {
		return dirs.Created{}, fmt.Errorf("%w: %w", dirs.ErrUntouched, err)
	}
	return share.Do(ctx, p.options.Shares, ref, operation.Create, dirs.Create{
		SubDir:  at.SubDir,
		Owner:   dirs.Owner{Cluster: p.options.ClusterID, Volume: name},
		ShareID: p.options.Cluster.ShareID(at.class.Share),
		Retain:  retain,
		Mode:    at.class.Mode,
		UID:     at.class.UID,
		GID:     at.class.GID,
	})
}

// ref returns how to mount a share: with the options of the class or volume, and those
// of the secret if there is one.
func (p *Provisioner) ref(ctx context.Context, s volume.Share, options []string, secret *volume.SecretRef) (share.Ref, error) {
	options, err := cluster.MountOptions(ctx, p.options.Client, s, options, secret)
	return share.Ref{Share: s, MountOptions: options}, err
}

// noteConflict has the records looked through some time: the volume in the way, of a
// claim or of an adopted volume that is to go, may be one that nobody has deleted in order.
func (p *Provisioner) noteConflict(err error) {
	if errors.Is(err, dirs.ErrConflict) {
		select {
		case p.conflicts <- struct{}{}:
		default: // there is one waiting
		}
	}
}
