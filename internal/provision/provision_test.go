package provision

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v8/controller"
	"sigs.k8s.io/yaml"

	"sharevol.dev/sharevol/internal/share"
	"sharevol.dev/sharevol/internal/share/fakeshare"
)

const driver = "csi.sharevol.dev"

var ctx = context.Background()

func request() controller.ProvisionOptions {
	retain := v1.PersistentVolumeReclaimRetain
	return controller.ProvisionOptions{
		PVName: "pvc-1",
		StorageClass: &storagev1.StorageClass{
			ObjectMeta:    metav1.ObjectMeta{Name: "sharevol"},
			Provisioner:   driver,
			Parameters:    map[string]string{"server": "nfs.example.com", "share": "/srv/volumes/", "onDelete": "delete"},
			MountOptions:  []string{"nfsvers=4.2", "hard"},
			ReclaimPolicy: &retain,
			AllowedTopologies: []v1.TopologySelectorTerm{{MatchLabelExpressions: []v1.TopologySelectorLabelRequirement{
				{Key: "topology.kubernetes.io/zone", Values: []string{"a", "b"}},
			}}},
		},
		PVC: &v1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "notes"},
			Spec: v1.PersistentVolumeClaimSpec{
				AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteMany, v1.ReadOnlyMany},
				Resources:   v1.VolumeResourceRequirements{Requests: v1.ResourceList{v1.ResourceStorage: resource.MustParse("5Gi")}},
			},
		},
	}
}

func TestProvisionWritesThisVolume(t *testing.T) {
	shares := &fakeshare.Shares{}
	pv, state, err := New(driver, shares).Provision(ctx, request())
	if err != nil || state != controller.ProvisioningFinished {
		t.Fatalf("%v, %v", state, err)
	}
	got, err := yaml.Marshal(pv)
	if err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/volume.yaml"
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(golden, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("got:\n%s\nwant (UPDATE_GOLDEN=1 rewrites it):\n%s", got, want)
	}
	const dir = "nfs.example.com:/srv/volumes/pvc-1"
	if dirs := shares.Dirs(); !slices.Equal(dirs, []string{dir}) {
		t.Errorf("directories %v", dirs)
	}
	if options := shares.Ref(dir).MountOptions; !slices.Equal(options, []string{"nfsvers=4.2", "hard"}) {
		t.Errorf("the provisioner mounts with %v", options)
	}
}

func TestProvisionIsIdempotent(t *testing.T) {
	p := New(driver, &fakeshare.Shares{})
	first, _, err1 := p.Provision(ctx, request())
	second, _, err2 := p.Provision(ctx, request())
	if err1 != nil || err2 != nil || fmt.Sprint(first) != fmt.Sprint(second) {
		t.Errorf("%v, %v:\n%v\n%v", err1, err2, first, second)
	}
}

func TestReclaimPolicyIsDeleteByDefault(t *testing.T) {
	r := request()
	r.StorageClass.ReclaimPolicy = nil
	pv, _, err := New(driver, &fakeshare.Shares{}).Provision(ctx, r)
	if err != nil || pv.Spec.PersistentVolumeReclaimPolicy != v1.PersistentVolumeReclaimDelete {
		t.Errorf("%v, %v", pv, err)
	}
}

func TestProvisionRefuses(t *testing.T) {
	cases := map[string]struct {
		change func(*controller.ProvisionOptions)
		want   []string
	}{
		"no server":         {func(o *controller.ProvisionOptions) { delete(o.StorageClass.Parameters, "server") }, []string{"parameters[server]: Required"}},
		"unknown parameter": {func(o *controller.ProvisionOptions) { o.StorageClass.Parameters["block"] = "x" }, []string{"parameters[block]", "unknown parameter"}},
		"mount option":      {func(o *controller.ProvisionOptions) { o.StorageClass.MountOptions = []string{"suid"} }, []string{"mountOptions[0]"}},
		"selector":          {func(o *controller.ProvisionOptions) { o.PVC.Spec.Selector = &metav1.LabelSelector{} }, []string{"claim.spec.selector: Forbidden"}},
		"data source": {func(o *controller.ProvisionOptions) {
			o.PVC.Spec.DataSource = &v1.TypedLocalObjectReference{Name: "x"}
			o.PVC.Spec.DataSourceRef = &v1.TypedObjectReference{Name: "x"}
		}, []string{"claim.spec.dataSource: Forbidden", "claim.spec.dataSourceRef: Forbidden"}},
		"access mode": {func(o *controller.ProvisionOptions) {
			o.PVC.Spec.AccessModes = []v1.PersistentVolumeAccessMode{"WriteSometimes"}
		}, []string{"claim.spec.accessModes[0]: Unsupported"}},
		"volume name": {func(o *controller.ProvisionOptions) { o.PVName = "../x" }, []string{"path component"}},
		"everything": {func(o *controller.ProvisionOptions) {
			o.StorageClass.Parameters = map[string]string{"onDelete": "archive"}
			o.PVC.Spec.Selector = &metav1.LabelSelector{}
		}, []string{"parameters[server]", "parameters[share]", "parameters[onDelete]", "delete, retain", "claim.spec.selector"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			shares, options := &fakeshare.Shares{}, request()
			c.change(&options)
			_, state, err := New(driver, shares).Provision(ctx, options)
			if err == nil || state != controller.ProvisioningNoChange {
				t.Fatalf("%v, %v", state, err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q lacks %q", err, want)
				}
			}
			if dirs := shares.Dirs(); len(dirs) > 0 {
				t.Errorf("made %v", dirs)
			}
		})
	}
}

// What may have begun is finished even when the claim is deleted meanwhile.
func TestProvisioningState(t *testing.T) {
	cases := map[controller.ProvisioningState]error{
		controller.ProvisioningNoChange:     fmt.Errorf("%w: no route", share.ErrUntouched),
		controller.ProvisioningInBackground: fmt.Errorf("%w: silence", share.ErrNoAnswer),
	}
	for want, failure := range cases {
		_, state, err := New(driver, &fakeshare.Shares{Err: failure}).Provision(ctx, request())
		if state != want || !errors.Is(err, failure) {
			t.Errorf("%v: got %v, %v", failure, state, err)
		}
	}
}

func provisioned(t *testing.T, p *Provisioner, onDelete string) *v1.PersistentVolume {
	t.Helper()
	options := request()
	options.StorageClass.Parameters["onDelete"] = onDelete
	pv, _, err := p.Provision(ctx, options)
	if err != nil {
		t.Fatal(err)
	}
	return pv
}

func TestDelete(t *testing.T) {
	shares := &fakeshare.Shares{}
	p := New(driver, shares)
	pv := provisioned(t, p, "delete")
	for range 2 {
		if err := p.Delete(ctx, pv); err != nil {
			t.Fatal(err)
		}
		if dirs := shares.Dirs(); len(dirs) > 0 {
			t.Errorf("left %v", dirs)
		}
	}
}

func TestDeleteRetains(t *testing.T) {
	shares := &fakeshare.Shares{}
	p := New(driver, shares)
	if err := p.Delete(ctx, provisioned(t, p, "retain")); err != nil {
		t.Fatal(err)
	}
	if dirs := shares.Dirs(); len(dirs) != 1 {
		t.Errorf("directories %v", dirs)
	}
}

// csi-driver-nfs CVE-2026-3864, nfs-subdir-external-provisioner #139: only the
// directory that has the volume's own name is ever removed.
func TestDeleteRefusesOtherDirectories(t *testing.T) {
	cases := map[string]func(*v1.PersistentVolume){
		"another volume's":  func(pv *v1.PersistentVolume) { pv.Spec.CSI.VolumeAttributes["subDir"] = "pvc-2" },
		"share root":        func(pv *v1.PersistentVolume) { delete(pv.Spec.CSI.VolumeAttributes, "subDir") },
		"traversal":         func(pv *v1.PersistentVolume) { pv.Spec.CSI.VolumeAttributes["subDir"] = "../pvc-1" },
		"no share":          func(pv *v1.PersistentVolume) { delete(pv.Spec.CSI.VolumeAttributes, "share") },
		"other driver":      func(pv *v1.PersistentVolume) { pv.Spec.CSI.Driver = "nfs.csi.k8s.io" },
		"no CSI volume":     func(pv *v1.PersistentVolume) { pv.Spec.CSI = nil },
		"redirecting mount": func(pv *v1.PersistentVolume) { pv.Spec.MountOptions = []string{"addr=192.0.2.9"} },
		"renamed volume":    func(pv *v1.PersistentVolume) { pv.Name = "pvc-2" },
		"policy":            func(pv *v1.PersistentVolume) { pv.Spec.CSI.VolumeAttributes["onDelete"] = "shred" },
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			shares := &fakeshare.Shares{}
			p := New(driver, shares)
			pv := provisioned(t, p, "delete")
			change(pv)
			if err := p.Delete(ctx, pv); err == nil || !strings.Contains(err.Error(), "left as it is") {
				t.Errorf("got %v", err)
			}
			if dirs := shares.Dirs(); len(dirs) != 1 {
				t.Errorf("directories %v", dirs)
			}
		})
	}
}

// A stop is no failure of the claim or volume: no event.
func TestProvisionThatIsStoppedIsSilent(t *testing.T) {
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	_, state, err := New(driver, &fakeshare.Shares{Err: fmt.Errorf("%w: %w", share.ErrUntouched, stopped.Err())}).Provision(stopped, request())
	if err != errStopping || state != controller.ProvisioningNoChange {
		t.Errorf("%v, %v", state, err)
	}
}

// A stop in the middle of a removal.
func TestDeleteThatIsStoppedIsSilent(t *testing.T) {
	p := New(driver, &fakeshare.Shares{})
	pv := provisioned(t, p, "delete")
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	p = New(driver, &fakeshare.Shares{Err: context.Canceled})
	if err := p.Delete(stopped, pv); err != errStopping {
		t.Errorf("got %v", err)
	}
}

func TestDrainWaitsForCallsAndRefusesNewOnes(t *testing.T) {
	shares := &fakeshare.Shares{Block: make(chan struct{})}
	p := New(driver, shares)
	done := make(chan error, 1)
	go func() {
		// The controller's context ends with SIGTERM; what has begun is finished.
		stopped, cancel := context.WithCancel(ctx)
		cancel()
		_, _, err := p.Provision(stopped, request())
		done <- err
	}()
	for deadline := time.Now().Add(10 * time.Second); shares.Waiting() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the call does not begin")
		}
	}
	short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	if err := p.Drain(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("drained while a call runs: %v", err)
	}
	if _, _, err := p.Provision(ctx, request()); err != errStopping {
		t.Errorf("a new call: %v", err)
	}
	if err := p.Delete(ctx, &v1.PersistentVolume{}); err != errStopping {
		t.Errorf("a new call: %v", err)
	}
	close(shares.Block)
	if err := p.Drain(ctx); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
