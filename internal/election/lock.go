package election

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"sharevol.dev/sharevol/internal/fence"
)

// releaseTries is how often a release is repeated that met another write, such as
// the renewal that was under way when the elector was stopped.
const releaseTries = 3

// lock is the lease as the elector works on it. It bounds every call, and moves the
// fence with each successful write and with nothing else.
type lock struct {
	resourcelock.Interface
	fence  *fence.Fence
	length time.Duration // of the fence, from before the request of a renewal on
	limit  time.Duration // of one call
}

func newLock(options Options) *lock {
	return &lock{
		Interface: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: options.Namespace, Name: options.Name},
			Client:     options.Client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: options.Identity},
		},
		fence:  options.Fence,
		length: options.fenceLength(),
		limit:  options.RenewDeadline / 2,
	}
}

// Get returns the record. One that names another holder while the fence is up ends
// the fence: somebody edited the lease, and the other does not wait for us.
func (l *lock) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, l.limit)
	defer cancel()
	record, raw, err := l.Interface.Get(ctx)
	if err == nil && l.fence.EverHeld() && record.HolderIdentity != l.Identity() {
		l.fence.Revoke(fmt.Sprintf("found with %q", record.HolderIdentity))
	}
	return record, raw, err
}

// Create makes the lease, ours.
func (l *lock) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return l.write(ctx, record, l.Interface.Create)
}

// Update makes the lease ours, or keeps it so.
func (l *lock) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return l.write(ctx, record, l.Interface.Update)
}

func (l *lock) write(ctx context.Context, record resourcelock.LeaderElectionRecord,
	send func(context.Context, resourcelock.LeaderElectionRecord) error,
) error {
	if l.fence.Expired() {
		// What runs under this fence is refused its writes already. To renew now
		// would only keep others from taking over.
		return l.fence.Check()
	}
	ctx, cancel := context.WithTimeout(ctx, l.limit)
	defer cancel()
	// The time before the request, not after it: others count from when they see
	// the record, which can be before the answer reaches us but not before this.
	start := l.fence.Now()
	if err := send(ctx, record); err != nil {
		return err // it may have been written, but nothing may be concluded from that
	}
	if !l.fence.Extend(start, l.length) {
		return l.fence.Check()
	}
	return nil
}

// release lets the next process have the lease at once. The fence must be over.
func (l *lock) release(ctx context.Context) error {
	var err error
	for range releaseTries {
		var record *resourcelock.LeaderElectionRecord
		record, _, err = l.Interface.Get(ctx)
		if err != nil || record.HolderIdentity != l.Identity() {
			return err
		}
		now := metav1.Now()
		err = l.Interface.Update(ctx, resourcelock.LeaderElectionRecord{
			LeaseDurationSeconds: 1, // zero is not valid
			AcquireTime:          now,
			RenewTime:            now,
			LeaderTransitions:    record.LeaderTransitions,
		})
		if !apierrors.IsConflict(err) {
			return err
		}
	}
	return err
}
