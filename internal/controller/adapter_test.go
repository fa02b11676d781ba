package controller

import (
	"errors"
	"fmt"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	lib "sigs.k8s.io/sig-storage-lib-external-provisioner/v8/controller"

	"sharevol.dev/sharevol/internal/cluster"
	"sharevol.dev/sharevol/internal/cluster/clustertest"
	"sharevol.dev/sharevol/internal/share"
	"sharevol.dev/sharevol/internal/share/sharetest"
	"sharevol.dev/sharevol/internal/volume"
)

func options1() lib.ProvisionOptions {
	return lib.ProvisionOptions{PVName: "pvc-1", StorageClass: clustertest.Class(), PVC: clustertest.Claim()}
}

// released makes a volume, as the API server has it when its claim is deleted.
func released(t *testing.T, f fixture, a *adapter) *v1.PersistentVolume {
	t.Helper()
	pv, state, err := a.Provision(ctx, options1())
	if err != nil || state != lib.ProvisioningFinished {
		t.Fatal(state, err)
	}
	pv.Annotations[cluster.AnnProvisionedBy], pv.Status.Phase = driver, v1.VolumeReleased
	_, err = f.client.CoreV1().PersistentVolumes().Create(ctx, pv, metav1.CreateOptions{})
	check(t, err)
	return pv
}

// Each premounted share has a provisioner of its own; the others look away.
func TestOnlyServedSharesAreWorkedOn(t *testing.T) {
	f := newFixture(t, sharetest.New(t), driverNames, 1, clustertest.Class())
	a := f.adapter(t)
	pv := released(t, f, a)
	if !a.ShouldProvision(ctx, clustertest.Claim()) || !a.ShouldDelete(ctx, pv) {
		t.Error("served")
	}
	f.shares.ServeOnly(volume.Share{Server: "other.example.com", Path: "/"})
	if a.ShouldProvision(ctx, clustertest.Claim()) || a.ShouldDelete(ctx, pv) {
		t.Error("not served")
	}
}

// The DELETE's own event comes when the volume is gone, and the cache has it still.
func TestAVolumeThatIsGoneIsNotDeletedAgain(t *testing.T) {
	f := newFixture(t, sharetest.New(t), driverNames, 1, clustertest.Class())
	a := f.adapter(t)
	pv := released(t, f, a)
	now := metav1.Now()
	leaving := pv.DeepCopy()
	leaving.DeletionTimestamp = &now
	if !a.ShouldDelete(ctx, leaving) {
		t.Error("one that is there still is to be deleted")
	}
	replaced := leaving.DeepCopy()
	replaced.UID = "another"
	if a.ShouldDelete(ctx, replaced) {
		t.Error("another of its name is there")
	}
	check(t, f.client.CoreV1().PersistentVolumes().Delete(ctx, pv.Name, metav1.DeleteOptions{}))
	if a.ShouldDelete(ctx, leaving) {
		t.Error("gone")
	}
}

// What may have begun is finished even when the claim is deleted meanwhile. How long the
// retry takes says what kind of failure it was.
func TestHowProvisioningEnds(t *testing.T) {
	invalid := options1()
	invalid.StorageClass.Parameters["server"] = ""
	for name, test := range map[string]struct {
		options  lib.ProvisionOptions
		failure  error
		state    lib.ProvisioningState
		min, max time.Duration // of the next retry
	}{
		"untouched": {options1(), fmt.Errorf("%w: no route", share.ErrUntouched), lib.ProvisioningNoChange, firstRetry, firstRetry},
		"no answer": {options1(), fmt.Errorf("%w: silence", share.ErrNoAnswer), lib.ProvisioningInBackground, firstRetry, firstRetry},
		"invalid":   {invalid, nil, lib.ProvisioningNoChange, refusedRetry, refusedRetry},
		"throttled": {options1(), fmt.Errorf("%w: %w", share.ErrUntouched, share.ErrBusy), lib.ProvisioningNoChange, 0, firstRetry},
		"no share":  {options1(), fmt.Errorf("%w: %w", share.ErrUntouched, share.ErrUnavailable), lib.ProvisioningNoChange, refusedRetry, 2 * refusedRetry},
	} {
		f := newFixture(t, sharetest.New(t), driverNames, 1)
		a := f.adapter(t)
		f.shares.Fail(test.failure)
		_, state, err := a.Provision(ctx, test.options)
		if err == nil || state != test.state || test.failure != nil && !errors.Is(err, test.failure) {
			t.Errorf("%s: %v, %v", name, state, err)
		}
		if d := a.retries.When("1"); d < test.min || d > test.max {
			t.Errorf("%s: tried again after %v", name, d)
		}
	}
}

// A deletion waits for its share as a claim does, and changes nothing meanwhile. Its end is
// one for the library, which has nothing more to do, and so is that of one that is stopped.
func TestHowDeletionEnds(t *testing.T) {
	f := newFixture(t, sharetest.New(t), driverNames, 1)
	a := f.adapter(t)
	pv := released(t, f, a)
	for cause, within := range map[error][2]time.Duration{share.ErrBusy: {0, firstRetry}, share.ErrUnavailable: {refusedRetry, 2 * refusedRetry}} {
		f.shares.Fail(fmt.Errorf("%w: %w", share.ErrUntouched, cause))
		if err := a.Delete(ctx, pv); !errors.Is(err, cause) {
			t.Errorf("%v: %v", cause, err)
		}
		if d := a.retries.When(pv.Name); d < within[0] || d > within[1] {
			t.Errorf("%v: tried again after %v", cause, d)
		}
		if there := f.shares.Dirs(); len(there) != 1 {
			t.Errorf("%v: left %v", cause, there)
		}
	}
	f.shares.Fail(nil)
	for _, what := range []string{"is deleted", "is gone"} {
		err := a.Delete(ctx, pv)
		if ignored, is := err.(*lib.IgnoredError); !is || ignored != errDeleted {
			t.Errorf("%s: %v", what, err)
		}
	}
	check(t, f.options.Provisioner.Drain(ctx))
	if err := a.Delete(ctx, pv); err != errStopping {
		t.Errorf("while it stops: %v", err)
	}
	if _, state, err := a.Provision(ctx, options1()); err != errStopping || state != lib.ProvisioningNoChange {
		t.Errorf("while it stops: %v, %v", state, err)
	}
}

// Of several provisioners of one driver, each with its own premounted shares, one leaves
// alone what another is deleting: it does not put the finalizer back.
func TestVolumesOfOtherSharesAreLeftAlone(t *testing.T) {
	of := func(name, server string, phase v1.PersistentVolumePhase) *v1.PersistentVolume {
		return &v1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{cluster.AnnProvisionedBy: driver, cluster.AnnShareID: "x"}},
			Spec: v1.PersistentVolumeSpec{
				PersistentVolumeReclaimPolicy: v1.PersistentVolumeReclaimDelete,
				PersistentVolumeSource: v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{
					Driver: driver, VolumeHandle: server + "#srv#" + name + "#" + name + "#",
					VolumeAttributes: map[string]string{"server": server, "share": "/srv", "subDir": name, "onDelete": "delete"},
				}},
			},
			Status: v1.PersistentVolumeStatus{Phase: phase},
		}
	}
	f := newFixture(t, sharetest.New(t), driverNames, 2, of("pvc-1", "nfs", v1.VolumeReleased), of("pvc-2", "elsewhere", v1.VolumeBound))
	f.shares.ServeOnly(volume.Share{Server: "elsewhere", Path: "/srv"})
	f.run(t)
	finalizers := func(name string) int {
		live, err := f.client.CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
		check(t, err)
		return len(live.Finalizers)
	}
	waitUntil(t, "finalizer on its own volume", func() bool { return finalizers("pvc-2") == 1 })
	time.Sleep(50 * time.Millisecond) // for what should not come
	if finalizers("pvc-1") != 0 {
		t.Error("it put its finalizer on a volume that it does not serve")
	}
}

// The library deletes one volume in one step each: DELETE, then the finalizer, and no event.
func TestDeletionThroughTheLibrary(t *testing.T) {
	f := newFixture(t, sharetest.New(t), driverNames, 2, clustertest.Class())
	pv := released(t, f, f.adapter(t))
	f.client.ClearActions()
	f.run(t)
	waitUntil(t, "the end of the volume", func() bool {
		_, err := f.client.CoreV1().PersistentVolumes().Get(ctx, pv.Name, metav1.GetOptions{})
		return err != nil
	})
	count := map[string]int{}
	for _, action := range f.client.Actions() {
		count[action.GetVerb()+" "+action.GetResource().Resource]++
	}
	if count["delete persistentvolumes"] != 1 || count["create events"] > 0 || len(f.shares.Dirs()) > 0 {
		t.Errorf("%v, left %v", count, f.shares.Dirs())
	}
}
