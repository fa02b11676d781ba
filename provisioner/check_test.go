package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sharevol.dev/sharevol/internal/check"
	"sharevol.dev/sharevol/internal/share/helper/fakehelper"
)

func TestMain(m *testing.M) {
	fakehelper.Main()
	os.Exit(m.Run())
}

// apiServer is an API server with one class, and nothing else. It notes what changes anything.
func apiServer(t *testing.T) (kubeconfig string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		answers := map[string]any{
			"/api/v1/namespaces/kube-system": v1.Namespace{TypeMeta: metav1.TypeMeta{Kind: "Namespace", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: "uid"}},
			"/api/v1/persistentvolumes":      v1.PersistentVolumeList{TypeMeta: metav1.TypeMeta{Kind: "PersistentVolumeList", APIVersion: "v1"}},
			"/api/v1/persistentvolumeclaims": v1.PersistentVolumeClaimList{TypeMeta: metav1.TypeMeta{Kind: "PersistentVolumeClaimList", APIVersion: "v1"}},
			"/apis/storage.k8s.io/v1/storageclasses": storagev1.StorageClassList{
				TypeMeta: metav1.TypeMeta{Kind: "StorageClassList", APIVersion: "storage.k8s.io/v1"},
				Items: []storagev1.StorageClass{{
					ObjectMeta: metav1.ObjectMeta{Name: "gold"}, Provisioner: "csi.sharevol.dev", Parameters: map[string]string{"server": "nfs", "share": "/srv"},
				}},
			},
		}
		answer, known := answers[r.URL.Path]
		if !known {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer)
	}))
	t.Cleanup(server.Close)
	kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	content := "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {}}]\nclusters: [{name: c, cluster: {server: '" + server.URL + "'}}]\n"
	if err := os.WriteFile(kubeconfig, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return kubeconfig
}

// doCheck is the program with the first argument "check".
func doCheck(args ...string) (status int, stdout, stderr string) {
	var out, err bytes.Buffer
	status = checkMain(context.Background(), args, &out, &err)
	return status, out.String(), err.String()
}

func TestCheckReports(t *testing.T) {
	kubeconfig, share := apiServer(t), t.TempDir()
	status, stdout, stderr := doCheck("--kubeconfig="+kubeconfig, "--shares=false")
	if status != 0 || !strings.Contains(stdout, "gold") || !strings.Contains(stdout, "All is well.") || stderr != "" {
		t.Errorf("status %d\n%s\n%s", status, stdout, stderr)
	}
	// What is premounted here is no NFS share.
	status, stdout, stderr = doCheck("--kubeconfig="+kubeconfig, "-o", "json", "--premounted=nfs:/srv="+share)
	var report check.Report
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || status != 1 || report.Status != check.StatusAttention || len(report.Shares) != 1 || !report.Shares[0].Reachable {
		t.Errorf("status %d, %v\n%s\n%s", status, err, stdout, stderr)
	}
	if entries, err := os.ReadDir(share); err != nil || len(entries) > 0 {
		t.Errorf("on the share: %v, %v", entries, err)
	}
}

func TestCheckSaysWhyItCanNotBeDone(t *testing.T) {
	kubeconfig := apiServer(t)
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	for name, test := range map[string]struct {
		args []string
		says []string
	}{
		"bad command line": {
			[]string{"-o=yaml", "--timeout=0s", "--size-time=-1s", "--driver-name=-", "--leader-elect", "word"},
			[]string{`-o="yaml"`, "--timeout=0s", "--size-time=-1s", `--driver-name="-"`, "-leader-elect", `"word"`, "--help"},
		},
		"no cluster":  {[]string{"--shares=false"}, []string{"--kubeconfig"}},
		"out of time": {[]string{"--shares=false", "--kubeconfig=" + kubeconfig, "--timeout=1ns"}, []string{"deadline"}},
	} {
		status, stdout, stderr := doCheck(test.args...)
		if status != 2 || stdout != "" {
			t.Errorf("%s: status %d, %s", name, status, stdout)
		}
		for _, want := range test.says {
			if !strings.Contains(stderr, want) {
				t.Errorf("%s: message lacks %q:\n%s", name, want, stderr)
			}
		}
	}
}

func TestCheckHelp(t *testing.T) {
	status, stdout, _ := doCheck("--help")
	for _, want := range []string{"sharevol-provisioner check [flags]", "Exit status: 0", "-size-time time", "-premounted SERVER"} {
		if status != 0 || !strings.Contains(stdout, want) {
			t.Errorf("status %d; lacks %q:\n%s", status, want, stdout)
		}
	}
	if status, stdout, _ := doCheck("--version"); status != 0 || stdout != "sharevol-provisioner check "+version+"\n" {
		t.Errorf("%d, %s", status, stdout)
	}
}

func TestCheckInheritsFromTheProvisionerOfItsPod(t *testing.T) {
	serving := []string{"--driver-name=nfs.csi.k8s.io", "--leader-elect=false", "-v=2", "--premounted=a:/=/a", "--premounted", "b:/=/b", "--http-address=:1", "--default-on-delete", "retain"}
	for name, test := range map[string]struct{ args, want []string }{
		"nothing given":   {nil, []string{"--driver-name=nfs.csi.k8s.io", "--premounted=a:/=/a", "--premounted=b:/=/b", "--default-on-delete=retain"}},
		"one given":       {[]string{"-premounted", "c:/=/c"}, []string{"--driver-name=nfs.csi.k8s.io", "--default-on-delete=retain", "-premounted", "c:/=/c"}},
		"others given":    {[]string{"-o", "json", "-shares"}, []string{"--driver-name=nfs.csi.k8s.io", "--premounted=a:/=/a", "--premounted=b:/=/b", "--default-on-delete=retain", "-o", "json", "-shares"}},
		"verbosity given": {[]string{"-v=4", "--default-on-delete=archive"}, []string{"--driver-name=nfs.csi.k8s.io", "--premounted=a:/=/a", "--premounted=b:/=/b", "-v=4", "--default-on-delete=archive"}},
	} {
		if all, _ := inherit(test.args, serving); !slices.Equal(all, test.want) {
			t.Errorf("%s: %q, want %q", name, all, test.want)
		}
	}
	for commandLine, want := range map[string][]string{
		"/sharevol-provisioner\x00--driver-name=x\x00-v=2\x00": {"--driver-name=x", "-v=2"},
		"/sharevol-provisioner\x00":                            {},
		"/sharevol-provisioner\x00check\x00":                   nil,
		"/sbin/init\x00--driver-name=x\x00":                    nil,
		"":                                                     nil,
	} {
		path := filepath.Join(t.TempDir(), "cmdline")
		if err := os.WriteFile(path, []byte(commandLine), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := servingArgs(path); !slices.Equal(got, want) {
			t.Errorf("%q: %q", commandLine, got)
		}
	}
}
