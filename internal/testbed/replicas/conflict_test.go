package replicas

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// fixed is a class whose claims all render to one directory; byName to that of any cluster's claim of the same name.
var (
	fixed  = kind{"fixed", "delete", "the/only/one"}
	byName = kind{"by-name", "delete", "apps/${pvc.metadata.name}"}
)

// refusal is what an event says of a claim whose directory is another volume's.
var refusal = regexp.MustCompile(`(?i)ProvisioningFailed: .*\b(belongs to|another|other|is used by|in use)\b`)

const (
	refusedWithin = 30 * time.Second
	servedWithin  = 90 * time.Second // the one that waits tries again after 1, 2, 4 ... seconds
)

// phase returns a claim's phase.
func (p *place) phase(ctx context.Context, claim string) (corev1.PersistentVolumeClaimPhase, error) {
	c, err := p.client.CoreV1().PersistentVolumeClaims(p.name).Get(ctx, claim, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	return c.Status.Phase, nil
}

// volume waits until a claim is bound, and returns the name of its volume.
func (p *place) volume(ctx context.Context, claim string) (name string, err error) {
	err = waitFor(ctx, "claim "+claim+" of "+p.name, servedWithin, func(ctx context.Context) (bool, string, error) {
		c, err := p.client.CoreV1().PersistentVolumeClaims(p.name).Get(ctx, claim, metav1.GetOptions{})
		if err != nil {
			return false, "", err
		}
		name = c.Spec.VolumeName
		return c.Status.Phase == corev1.ClaimBound, string(c.Status.Phase), nil
	})
	return name, err
}

// refused waits until an event says that a claim's directory is another's, and checks that it is not bound.
func (p *place) refused(ctx context.Context, claim, dir string) error {
	err := waitFor(ctx, "the refusal of "+claim+" of "+p.name, refusedWithin, func(ctx context.Context) (bool, string, error) {
		messages, err := p.warnings(ctx, p.name, claim)
		for _, message := range messages {
			if refusal.MatchString(message) && strings.Contains(message, dir) {
				return true, "", nil
			}
		}
		return false, fmt.Sprintf("%q", messages), err
	})
	if err != nil {
		return err
	}
	if phase, err := p.phase(ctx, claim); err != nil || phase != corev1.ClaimPending {
		return fmt.Errorf("claim %s of %s was refused and is %s: %v", claim, p.name, phase, err)
	}
	return nil
}

func (p *place) removeClaim(ctx context.Context, name string) error {
	return p.client.CoreV1().PersistentVolumeClaims(p.name).Delete(ctx, name, metav1.DeleteOptions{})
}

// volumeGone waits until a volume is gone.
func (p *place) volumeGone(ctx context.Context, name string) error {
	return waitFor(ctx, "volume "+name+" to go", servedWithin, func(ctx context.Context) (bool, string, error) {
		list, err := p.client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
		if err != nil || len(list.Items) == 0 {
			return err == nil, "", err
		}
		messages, err := p.warnings(ctx, metav1.NamespaceDefault, name)
		return false, fmt.Sprintf("it is there: %q", messages), err
	})
}

// Two claims of one cluster that render to one directory: one is served, the other refused, until the volume
// of the first is gone; that its directory is gone is not enough.
func TestTwoClaimsOneDirectory(t *testing.T) {
	ctx, lab := theLab(t, 5*time.Minute)
	p := newPlace(ctx, t, lab, lab.cluster, "same", "same", fixed)
	provisioner := p.provisioner(t, "a", lab.program)
	start(ctx, t, provisioner)
	names := []string{"one", "two"}
	check(t, atOnce(ctx, names, func(ctx context.Context, name string) error { _, err := p.createClaim(ctx, name, fixed); return err }))
	first, second := names[0], names[1]
	check(t, waitFor(ctx, "one of the claims", servedWithin, func(ctx context.Context) (bool, string, error) {
		phase, err := p.phase(ctx, second)
		if phase == corev1.ClaimBound {
			first, second = second, first
		} else if err == nil {
			phase, err = p.phase(ctx, first)
		}
		return phase == corev1.ClaimBound, string(phase), err
	}))
	dir := filepath.Join(p.share, fixed.subDir)
	name, err := p.volume(ctx, first)
	check(t, err)
	check(t, os.WriteFile(filepath.Join(dir, marker), []byte(first), 0o644))
	check(t, p.refused(ctx, second, fixed.subDir))

	// A volume that something holds on to, after its directory went.
	hold := func(patch string) error {
		_, err := p.client.CoreV1().PersistentVolumes().Patch(ctx, name, types.JSONPatchType, []byte(patch), metav1.PatchOptions{})
		return err
	}
	check(t, hold(`[{"op":"add","path":"/metadata/finalizers/0","value":"test.sharevol.dev/hold"}]`))
	check(t, p.removeClaim(ctx, first))
	check(t, waitFor(ctx, "the directory to go", servedWithin, func(context.Context) (bool, string, error) {
		_, err := os.Stat(filepath.Join(dir, marker))
		return os.IsNotExist(err), "it is there", nil
	}))
	for until := time.Now().Add(5 * time.Second); time.Now().Before(until); time.Sleep(poll) {
		if phase, err := p.phase(ctx, second); err != nil || phase != corev1.ClaimPending {
			t.Fatalf("the other claim is %s while the volume is still there: %v", phase, err)
		}
	}
	volume, err := p.client.CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
	check(t, err)
	for i, finalizer := range volume.Finalizers {
		if finalizer == "test.sharevol.dev/hold" {
			check(t, hold(fmt.Sprintf(`[{"op":"remove","path":"/metadata/finalizers/%d"}]`, i)))
		}
	}
	released := time.Now()
	check(t, p.volumeGone(ctx, name))
	name, err = p.volume(ctx, second)
	check(t, err)
	t.Logf("the second claim was served %s after the first's volume was let go", time.Since(released).Round(100*time.Millisecond))
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("the second claim's directory: %v, %v", entries, err)
	}
	check(t, p.removeClaim(ctx, second))
	check(t, p.volumeGone(ctx, name))
	empty(t, p.share)
}
