package controller

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	lib "sigs.k8s.io/sig-storage-lib-external-provisioner/v8/controller"

	"sharevol.dev/sharevol/internal/cluster"
	"sharevol.dev/sharevol/internal/cluster/clustertest"
	"sharevol.dev/sharevol/internal/provision"
	"sharevol.dev/sharevol/internal/share"
	"sharevol.dev/sharevol/internal/share/dirs"
	"sharevol.dev/sharevol/internal/share/sharetest"
)

// external-provisioner #447 and the library's own defaults: retries begin soon,
// slow down, and never end; a refused claim is not asked again within the minute.
func TestPace(t *testing.T) {
	p := newRetryPolicy(newLimits().retries)
	delays := make([]time.Duration, 30)
	for i := range delays {
		delays[i] = p.When("failing")
	}
	if delays[0] >= time.Second || delays[1] <= delays[0] || delays[29] != lastRetry {
		t.Errorf("delays %v", delays)
	}
	p.Forget("failing")
	if again := p.When("failing"); again != delays[0] {
		t.Errorf("after a success %v", again)
	}
	for range 5 {
		p.record("refused", provision.ErrInvalid)
		if d := p.When("refused"); d < time.Minute || d > lastRetry {
			t.Errorf("after a refusal %v", d)
		}
	}
	for range 10 {
		p.record("failing", share.ErrBusy)
		if d := p.When("failing"); d > busyRetry {
			t.Errorf("on a busy share %v", d)
		}
	}
	if d := p.When("refused"); d != delays[0] {
		t.Errorf("after the first failure of another kind %v", d)
	}
}

// Those that a share has sent away together do not come back together.
func TestRetriesOfAShareAreScattered(t *testing.T) {
	for kind, within := range map[error][2]time.Duration{share.ErrBusy: {firstRetry / 2, firstRetry}, share.ErrUnavailable: {refusedRetry, refusedRetry * 3 / 2}} {
		p := newRetryPolicy(newLimits().retries)
		first, last := within[1], within[0]
		for i := range 100 {
			item := strconv.Itoa(i)
			p.record(item, kind)
			d := p.When(item)
			if d < within[0] || d > within[1] {
				t.Errorf("%v: delay %v", kind, d)
			}
			first, last = min(first, d), max(last, d)
		}
		if last-first < (within[1]-within[0])/2 {
			t.Errorf("%v: all within %v", kind, last-first)
		}
	}
}

// However many wait for a busy share, that neither counts as their failures nor delays
// those of others.
func TestBusySharesDelayNobody(t *testing.T) {
	p := newRetryPolicy(newLimits().retries)
	for range 20 {
		for i := range 1000 {
			p.record(strconv.Itoa(i), share.ErrBusy)
			p.When(strconv.Itoa(i))
		}
	}
	for _, item := range []string{"another", "0"} {
		if d := p.When(item); d != firstRetry {
			t.Errorf("the first failure of %s: %v", item, d)
		}
	}
}

// What waits is tried at once when a share is back, and nothing else is.
func TestRetryAll(t *testing.T) {
	mine := map[string]string{annStorageProvisioner: driver}
	client := fake.NewClientset(
		&v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "waits", Annotations: mine}},
		&v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "others"}},
		&v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "bound", UID: "1", Annotations: mine}, Spec: v1.PersistentVolumeClaimSpec{VolumeName: "x"}},
	)
	caches, err := cluster.New(client, driverNames)
	check(t, err)
	k := &filteredInformer{SharedIndexInformer: caches.Claims, wants: claimOf(driver), waits: claimWaits, unsaved: &unsavedPVs{}}
	updates := make(chan string, 10)
	_, err = k.AddEventHandlerWithResyncPeriod(cache.ResourceEventHandlerFuncs{UpdateFunc: func(_, object any) {
		updates <- object.(*v1.PersistentVolumeClaim).Name
	}}, 0)
	check(t, err)
	caches.Start(t.Context())
	if !cache.WaitForCacheSync(t.Context().Done(), caches.Claims.HasSynced) {
		t.Fatal("the cache is not filled")
	}
	k.retryAll()
	if got := <-updates; got != "waits" || len(updates) > 0 {
		t.Errorf("%s and %d more", got, len(updates))
	}
}

// The library is shown the volumes for which it would do something, and no others.
func TestVolumesAtRestAreNotLookedAt(t *testing.T) {
	claim, class := asked()
	f := newFixture(t, sharetest.New(t), driverNames, 1, class)
	adapter := f.adapter(t)
	made, _, err := adapter.Provision(ctx, lib.ProvisionOptions{PVName: "pvc-1", StorageClass: clustertest.Class(), PVC: claim})
	check(t, err)
	metav1.SetMetaDataAnnotation(&made.ObjectMeta, cluster.AnnProvisionedBy, driver)
	made.Finalizers = []string{"somebody.example/else", provision.Finalizer}
	made.Spec.PersistentVolumeReclaimPolicy = v1.PersistentVolumeReclaimDelete
	shown := adapter.wantsVolume
	for what, c := range map[string]struct {
		change func(pv *v1.PersistentVolume)
		want   bool
	}{
		"new":                   {func(*v1.PersistentVolume) {}, false},
		"bound":                 {func(pv *v1.PersistentVolume) { pv.Status.Phase = v1.VolumeBound }, false},
		"released":              {func(pv *v1.PersistentVolume) { pv.Status.Phase = v1.VolumeReleased }, true},
		"without the finalizer": {func(pv *v1.PersistentVolume) { pv.Finalizers = pv.Finalizers[:1] }, true},
		"retained now": {func(pv *v1.PersistentVolume) {
			pv.Spec.PersistentVolumeReclaimPolicy = v1.PersistentVolumeReclaimRetain
		}, true},
		"another's and released": {func(pv *v1.PersistentVolume) { pv.Status.Phase, pv.Annotations = v1.VolumeReleased, nil }, false},
	} {
		pv := made.DeepCopy()
		c.change(pv)
		if got := shown(pv); got != c.want {
			t.Errorf("%s: shown %v", what, got)
		}
	}
}

// Of the changes of a claim that has its volume the library is not told.
func TestServedClaimsAreNotLookedAt(t *testing.T) {
	shown := claimOf(driver)
	for volumeName, want := range map[string]bool{"": true, "pvc-1": false, "by-hand": true} {
		claim := &v1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{UID: "1", Annotations: map[string]string{annStorageProvisioner: driver}},
			Spec:       v1.PersistentVolumeClaimSpec{VolumeName: volumeName},
		}
		if got := shown(claim); got != want {
			t.Errorf("with the volume %q: shown %v", volumeName, got)
		}
	}
}

// The claims of a share that is unavailable are left alone until it is back.
func TestClaimsWaitForTheReturnOfTheirShare(t *testing.T) {
	claim, class := clustertest.Claim(), clustertest.Class()
	class.Name = "of-a-dead-share" // TestMetrics counts those of the usual one
	claim.Spec.StorageClassName = &class.Name
	shares := sharetest.New(t)
	shares.Fail(fmt.Errorf("%w: %w", dirs.ErrUntouched, share.ErrUnavailable))
	f := newFixture(t, shares, driverNames, 2, class, claim)
	client := f.client
	f.run(t)
	failures := func() (n int) {
		for _, action := range client.Actions() {
			if action.Matches("create", "events") && action.(clienttesting.CreateAction).GetObject().(*v1.Event).Type == v1.EventTypeWarning || action.Matches("patch", "events") {
				n++
			}
		}
		return n
	}
	waitUntil(t, "a warning", func() bool { return failures() > 0 })
	time.Sleep(4 * firstRetry)
	if n := failures(); n != 1 {
		t.Errorf("the claim has failed %d times within a second", n)
	}
	shares.Fail(nil)
	f.recovered <- struct{}{}
	waitUntil(t, "the volume", func() bool {
		_, err := client.CoreV1().PersistentVolumes().Get(ctx, "pvc-1", metav1.GetOptions{})
		return err == nil
	})
}
