package e2e

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"sharevol.dev/sharevol/internal/testbed/guest"
	"sharevol.dev/sharevol/internal/testbed/scene"
)

// world is the scene that all tests share, one after the other.
type world struct {
	*scene.Scene
	client kubernetes.Interface
}

func TestEndToEnd(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	s, err := scene.Start(ctx, func(format string, args ...any) { t.Logf("%s: %s", uptime(), fmt.Sprintf(format, args...)) })
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if t.Failed() {
			_ = s.Cluster.DumpLogs(context.Background(), os.Stdout)
		}
	}()
	if err := s.Install(ctx); err != nil {
		t.Fatal(err)
	}
	_, err = s.Cluster.Kubectl(ctx, "apply", "-f", scene.Examples+"/storageclass.yaml")
	check(t, err)
	t.Logf("%s: installed", uptime())
	defer func() {
		// The last thing said: whether the machine's memory is enough.
		memory, err := os.ReadFile("/proc/meminfo")
		t.Logf("%.84s %v", memory, err)
	}()
	w := world{Scene: s, client: s.Cluster.Client()}
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"MainJob", w.testMainJob},
		{"TwoClaimsAtOnce", w.testTwoClaimsAtOnce},
		{"Retain", w.testRetain},
		{"PolicyChanges", w.testPolicyChanges},
		{"VolumeDeletedFirst", w.testVolumeDeletedFirst},
		{"EveryParameter", w.testEveryParameter},
		{"OneDirectory", w.testOneDirectory},
		{"Secret", w.testSecret},
		{"OtherUsersFilesAreRemoved", w.testOtherUsersFilesAreRemoved},
		{"WaitForFirstConsumer", w.testWaitForFirstConsumer},
		{"NodeIsGone", w.testNodeIsGone},
		{"Versions", w.testVersions},
		{"TwoNamesOfOneServer", w.testTwoNamesOfOneServer},
		{"LinkOnTheServer", w.testLinkOnTheServer},
		{"Static", w.testStatic},
		{"BadInput", w.testBadInput},
		{"Health", w.testHealth},
		{"Sanity", w.testSanity},
		{"RepeatedEvent", w.testRepeatedEvent}, // a minute after BadInput, before the provisioner restarts
		{"Registration", w.testRegistration},
		{"RestartProvisioner", w.testRestartProvisioner},
		{"Unprivileged", w.testUnprivileged},
		{"Permissions", w.testPermissions}, // last: of all calls before
	} {
		if !t.Run(test.name, test.run) {
			describe(t, w)
		}
		t.Logf("%s: %s", uptime(), test.name)
	}
}

// describe prints what went on, near the failure.
func describe(t *testing.T, w world) {
	events, err := w.Cluster.Kubectl(context.Background(), "get", "events,pods,pvc,pv", "-A", "--request-timeout=10s")
	t.Logf("%s %v %v", events, err, w.Cluster.Alive())
}

func uptime() string {
	var seconds float64
	data, err := os.ReadFile("/proc/uptime")
	if err == nil {
		_, err = fmt.Sscan(string(data), &seconds)
	}
	if err != nil {
		return err.Error()
	}
	return (time.Duration(seconds) * time.Second).String()
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// class makes a StorageClass of the examples' share, changed by change.
func (w world) class(t *testing.T, name string, change func(*storagev1.StorageClass)) {
	t.Helper()
	class := &storagev1.StorageClass{
		ObjectMeta:   metav1.ObjectMeta{Name: name},
		Provisioner:  "csi.sharevol.dev",
		Parameters:   map[string]string{"server": scene.ServerName, "share": scene.Share},
		MountOptions: []string{"nfsvers=4.2", "hard"},
	}
	if change != nil {
		change(class)
	}
	_, err := w.client.StorageV1().StorageClasses().Create(t.Context(), class, metav1.CreateOptions{})
	check(t, err)
}

// claim makes a claim of a class.
func (w world) claim(t *testing.T, name, class string, change func(*corev1.PersistentVolumeClaim)) {
	t.Helper()
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &class,
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany},
			Resources:        corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")}},
		},
	}
	if change != nil {
		change(claim)
	}
	_, err := w.client.CoreV1().PersistentVolumeClaims(metav1.NamespaceDefault).Create(t.Context(), claim, metav1.CreateOptions{})
	check(t, err)
}

func (w world) bound(t *testing.T, claim string) *corev1.PersistentVolume {
	t.Helper()
	pv, err := w.Bound(t.Context(), claim)
	check(t, err)
	return pv
}

// pod makes a pod that has a claim at /data and runs script, then sleeps. It is
// ready once the script is done.
func (w world) pod(t *testing.T, name, claim, script string, change func(*corev1.Pod)) {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			HostNetwork: true, // starts faster
			Containers: []corev1.Container{{
				Name: "main", Image: "docker.io/library/busybox:1.37",
				Command:      []string{"sh", "-ec", script + "\ntouch /tmp/done; exec sleep 1000000"},
				VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/data"}},
				ReadinessProbe: &corev1.Probe{
					ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"test", "-e", "/tmp/done"}}},
					PeriodSeconds: 1,
				},
			}},
			Volumes: []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim},
			}}},
		},
	}
	if change != nil {
		change(pod)
	}
	_, err := w.client.CoreV1().Pods(metav1.NamespaceDefault).Create(t.Context(), pod, metav1.CreateOptions{})
	check(t, err)
}

func (w world) running(t *testing.T, pod string) *corev1.Pod {
	t.Helper()
	p, err := w.Running(t.Context(), pod)
	check(t, err)
	return p
}

// remove deletes a claim and waits until its volume is gone.
func (w world) remove(t *testing.T, claim string, pv *corev1.PersistentVolume) {
	t.Helper()
	check(t, w.DeleteClaim(t.Context(), claim))
	check(t, w.VolumeGone(t.Context(), pv.Name))
}

// systemPod returns the running pod of one of sharevol's two programs.
func (w world) systemPod(ctx context.Context, component string) (*corev1.Pod, error) {
	pods, err := w.client.CoreV1().Pods(guest.SystemNamespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=" + component})
	if err != nil {
		return nil, err
	}
	if len(pods.Items) != 1 {
		return nil, fmt.Errorf("%d pods of the %s", len(pods.Items), component)
	}
	return &pods.Items[0], nil
}
