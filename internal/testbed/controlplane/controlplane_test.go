package controlplane

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sharevol.dev/sharevol/internal/testbed"
	"sharevol.dev/sharevol/internal/testbed/guest"
)

// childEnv makes this program start a control plane in the folder that it names, and wait to be killed.
const childEnv = "SHAREVOL_TEST_CONTROLPLANE"

const testTimeout = 10 * time.Minute // Kubernetes may have to be built

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if _, err := startIn(context.Background(), dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("started")
		_, _ = io.Copy(io.Discard, os.Stdin) // until the test ends, should it not kill this
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func startIn(ctx context.Context, dir string) (*ControlPlane, error) {
	host, err := testbed.NewHost(testbed.NewProgress(os.Stderr))
	if err != nil {
		return nil, err
	}
	return Start(ctx, host, Options{Name: "cluster", Dir: dir, Logs: dir})
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// running returns the command lines of the processes that name dir.
func running(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	check(t, err)
	var lines []string
	for _, file := range files {
		if line, err := os.ReadFile(file); err == nil && strings.Contains(string(line), dir) {
			lines = append(lines, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return lines
}

func noneLeft(t *testing.T, dir string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	check(t, guest.WaitFor(ctx, "the processes to end", poll, func(context.Context) (bool, string, error) {
		left := running(t, dir)
		return len(left) == 0, strings.Join(left, "\n"), nil
	}))
}

// A control plane has the manifests' rights and no others, binds claims, and leaves nothing behind.
func TestControlPlane(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	dir, started := t.TempDir(), time.Now()
	c, err := startIn(ctx, dir)
	check(t, err)
	t.Logf("started in %s", time.Since(started).Round(time.Millisecond))
	defer func() { _ = c.Stop() }()
	check(t, c.Install(ctx))
	t.Logf("installed after %s", time.Since(started).Round(time.Millisecond))
	path, err := c.ServiceAccountKubeconfig(ctx, guest.SystemNamespace, "sharevol-provisioner")
	check(t, err)
	client, err := newClient(path)
	check(t, err)
	if _, err := client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{}); err != nil {
		t.Errorf("what the manifests allow: %v", err)
	}
	if _, err := client.CoreV1().Secrets("default").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("what the manifests do not allow: %v", err)
	}
	users, err := c.Audit()
	check(t, err)
	calls := users["system:serviceaccount:"+guest.SystemNamespace+":sharevol-provisioner"]
	if len(users) != 1 || calls == nil || calls.Used["/persistentvolumes list"] != 1 || calls.Used["/secrets list"] != 1 ||
		len(calls.Forbidden) != 1 || !strings.Contains(calls.Forbidden[0], "secrets") {
		t.Errorf("audit: %+v", users)
	}
	bind(t, ctx, c)
	if len(running(t, dir)) != 3 {
		t.Errorf("running: %q", running(t, dir))
	}
	check(t, c.Stop())
	check(t, c.Stop())
	noneLeft(t, dir)
}

// bind sees that the controllers work: a hand-made volume is bound.
func bind(t *testing.T, ctx context.Context, c *ControlPlane) {
	t.Helper()
	none, storage := "", corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")}
	modes := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
	_, err := c.Client().CoreV1().PersistentVolumes().Create(ctx, &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "by-hand"},
		Spec: corev1.PersistentVolumeSpec{Capacity: storage, AccessModes: modes, PersistentVolumeSource: corev1.PersistentVolumeSource{
			NFS: &corev1.NFSVolumeSource{Server: "nfs.example.com", Path: "/"},
		}},
	}, metav1.CreateOptions{})
	check(t, err)
	claims := c.Client().CoreV1().PersistentVolumeClaims("default")
	_, err = claims.Create(ctx, &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "claim"},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &none, AccessModes: modes, Resources: corev1.VolumeResourceRequirements{Requests: storage},
		},
	}, metav1.CreateOptions{})
	check(t, err)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	check(t, guest.WaitFor(ctx, "the claim to be bound", poll, func(ctx context.Context) (bool, string, error) {
		claim, err := claims.Get(ctx, "claim", metav1.GetOptions{})
		return err == nil && claim.Status.Phase == corev1.ClaimBound, fmt.Sprintf("%s %v", claim.Status.Phase, err), c.Alive()
	}))
}

// Two run at once, and nothing of them outlives the programs that started them, though these are killed.
func TestNothingOutlivesAKilledProgram(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	children := map[string]*exec.Cmd{}
	outputs := map[string]io.Reader{}
	for _, dir := range []string{t.TempDir(), t.TempDir()} {
		cmd := exec.CommandContext(ctx, os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+dir)
		cmd.Stderr = os.Stderr
		_, err := cmd.StdinPipe() // ends with this program
		check(t, err)
		outputs[dir], err = cmd.StdoutPipe()
		check(t, err)
		check(t, cmd.Start())
		children[dir] = cmd
	}
	for dir, output := range outputs {
		if line, _ := bufio.NewReader(output).ReadString('\n'); line != "started\n" {
			t.Error(line)
		}
		if len(running(t, dir)) != 3 {
			t.Errorf("running: %q", running(t, dir))
		}
	}
	for dir, cmd := range children {
		check(t, cmd.Process.Kill())
		_ = cmd.Wait() // reports the kill
		noneLeft(t, dir)
	}
}
