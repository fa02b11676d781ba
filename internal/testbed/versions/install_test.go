package versions

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sharevol.dev/sharevol/internal/testbed/controlplane"
)

const (
	account   = "sharevol-provisioner" // and the Deployment
	plugin    = "sharevol-node"        // the DaemonSet
	driver    = "csi.sharevol.dev"
	server    = "nfs.example.com"
	sharePath = "/srv/volumes"

	admittedWithin = 20 * time.Second // the controller gives accounts their secrets meanwhile
)

// testApply applies the manifests, and finds where they install to.
func testApply(ctx context.Context, t *testing.T, c *cluster) {
	check(t, c.Apply(ctx, c.kustomization))
	all, err := c.client.AppsV1().Deployments(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	check(t, err)
	if len(all.Items) != 1 || all.Items[0].Name != account {
		t.Fatalf("%d Deployments", len(all.Items))
	}
	c.namespace = all.Items[0].Namespace
	c.kubeconfig, err = c.ServiceAccountKubeconfig(ctx, c.namespace, account)
	check(t, err)
}

// testPods asks the API server for the pods that the controllers would make; none is made.
func testPods(ctx context.Context, t *testing.T, c *cluster) {
	deployment, err := c.client.AppsV1().Deployments(c.namespace).Get(ctx, account, metav1.GetOptions{})
	check(t, err)
	daemonSet, err := c.client.AppsV1().DaemonSets(c.namespace).Get(ctx, plugin, metav1.GetOptions{})
	check(t, err)
	for name, template := range map[string]corev1.PodTemplateSpec{account: deployment.Spec.Template, plugin: daemonSet.Spec.Template} {
		pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
		pod.Name = name
		waitFor(ctx, t, "the pod of "+name+" to be admitted", admittedWithin, func(ctx context.Context) (bool, string, error) {
			made, err := c.client.CoreV1().Pods(c.namespace).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			if err != nil {
				return false, err.Error(), c.Alive()
			}
			if made.Spec.Priority == nil || *made.Spec.Priority <= 0 {
				t.Errorf("the pod of %s has the priority %v", name, made.Spec.Priority)
			}
			return true, "", nil
		})
	}
}

// testOthers applies what else is for this release, one in place of the other: other kustomizations, then
// components by themselves and together.
func testOthers(ctx context.Context, t *testing.T, c *cluster) {
	for _, kustomization := range c.others {
		check(t, c.Apply(ctx, kustomization))
		testPods(ctx, t, c)
	}
	for _, components := range c.combined() {
		dir, err := c.Combine("base", components...)
		check(t, err)
		check(t, c.Apply(ctx, dir))
		testPods(ctx, t, c)
	}
	c.cell = "the components `" + strings.Join(append(c.choices(), "from-csi-driver-nfs"), "`, `") + "`"
	if len(c.others) > 0 {
		c.cell = "`" + strings.Join(c.others, "`, `") + "`; " + c.cell
	}
}

// testStart starts a leader, one that stands by, and one that streams its lists.
func testStart(ctx context.Context, t *testing.T, c *cluster) {
	c.streaming = c.provisioner(t, "streaming", c.lab.streaming, "--driver-name=streaming.sharevol.dev", "--leader-elect=false")
	check(t, c.streaming.Start(ctx))
	c.streamsSince = time.Now()
	c.leader, c.standby = c.provisioner(t, "a", c.lab.program), c.provisioner(t, "b", c.lab.program)
	check(t, c.leader.Start(ctx))
	c.running = append(c.running, c.leader)
	check(t, c.leader.Ready(ctx))
	waitFor(ctx, t, "a leader", takeoverPromise, func(ctx context.Context) (bool, string, error) {
		now, err := c.lease(ctx)
		if err != nil {
			return false, err.Error(), c.alive()
		}
		return now.holder != "", "no holder", c.alive()
	})
	check(t, c.standby.Start(ctx))
	c.running = append(c.running, c.standby)
	check(t, c.standby.Ready(ctx))
}

// provisioner prepares a provisioner with the manifests' rights. It is ended with the tests of the release.
func (c *cluster) provisioner(t *testing.T, name, program string, args ...string) *controlplane.Provisioner {
	t.Helper()
	provisioner, err := controlplane.NewProvisioner(controlplane.ProvisionerOptions{
		Name: c.name + "-" + name, Program: program, Dir: c.lab.dir, Logs: c.lab.logs(),
		Args: append([]string{
			"--kubeconfig=" + c.kubeconfig, "--premounted=" + server + ":" + sharePath + "=" + c.share,
			"--lease-namespace=" + c.namespace, "-v=4",
		}, args...),
		Env: []string{"POD_NAME=" + name},
	})
	check(t, err)
	c.closers = append(c.closers, provisioner.Close)
	return provisioner
}

// testForbidden reads what the API server and the programs themselves have written.
func testForbidden(_ context.Context, t *testing.T, c *cluster) {
	users, err := c.Audit()
	check(t, err)
	calls := users["system:serviceaccount:"+c.namespace+":"+account]
	if len(users) != 1 || calls == nil {
		t.Fatalf("calls of %d service accounts", len(users))
	}
	for _, call := range []string{"/persistentvolumes create", "/persistentvolumes delete", "/events create", "coordination.k8s.io/leases update"} {
		if calls.Used[call] == 0 {
			t.Errorf("the audit log has no %q: %v", call, calls.Used)
		}
	}
	for _, line := range calls.Forbidden {
		t.Errorf("forbidden: %s", line)
	}
	for _, p := range []*controlplane.Provisioner{c.leader, c.standby} {
		log, err := os.ReadFile(p.Log())
		check(t, err)
		for line := range strings.Lines(string(log)) {
			if strings.Contains(line, "forbidden") {
				t.Errorf("%s: %s", p.Name(), line)
			}
		}
	}
}
