package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"sharevol.dev/sharevol/internal/csiserver"
)

func TestRegistrationFlags(t *testing.T) {
	const endpoint = "--endpoint=unix:///var/lib/kubelet/plugins/csi.sharevol.dev/csi.sock"
	for name, test := range map[string]struct {
		args []string
		want []string // what the message says; nothing where there is none
	}{
		"as in the overlay":       {args: []string{endpoint, "--registration-dir=/var/lib/kubelet/plugins_registry"}},
		"folder elsewhere":        {args: []string{endpoint, "--registration-dir=/registration"}},
		"kubelet elsewhere":       {args: []string{"--endpoint=unix:///k/p/csi.sock", "--kubelet-dir=/k", "--registration-dir=/k/r"}},
		"none":                    {args: []string{"--endpoint=unix:///csi/csi.sock"}},
		"relative":                {args: []string{endpoint, "--registration-dir=registry"}, want: []string{`--registration-dir="registry"`, "/var/lib/kubelet/plugins_registry"}},
		"too long":                {args: []string{endpoint, "--registration-dir=/" + strings.Repeat("r", 90)}, want: []string{"--registration-dir=", "107"}},
		"default endpoint":        {args: []string{"--registration-dir=/r"}, want: []string{`--endpoint="unix:///csi/csi.sock"`, `--kubelet-dir="/var/lib/kubelet"`, "unix:///var/lib/kubelet/plugins/csi.sharevol.dev/csi.sock"}},
		"endpoint beside kubelet": {args: []string{"--endpoint=unix:///var/lib/kubelet-not/csi.sock", "--registration-dir=/r"}, want: []string{"--endpoint="}},
		"endpoint leads out":      {args: []string{"--endpoint=unix:///var/lib/kubelet/../csi.sock", "--registration-dir=/r"}, want: []string{"--endpoint="}},
		"all at once":             {args: []string{"--registration-dir=registry", "--endpoint=tcp://x"}, want: []string{`--registration-dir="registry"`, `--endpoint="tcp://x"`}},
	} {
		t.Run(name, func(t *testing.T) {
			err := run(context.Background(), append(test.args, "--node-id=node1", "surplus"), &bytes.Buffer{})
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("message lacks %q:\n%v", want, err)
				}
			}
			if fine := strings.Count(err.Error(), "--") == 1; len(test.want) == 0 && !fine { // that of "--help lists the flags"
				t.Errorf("a fault that is none:\n%v", err)
			}
		})
	}
}

// plugin is a running program that registers itself.
type plugin struct {
	registry, socket string
	stop             context.CancelFunc
	ended            chan error
}

// runPlugin runs the program in a folder of kubelet's that has nothing but the
// registration folder.
func runPlugin(t *testing.T, prepare func(registry string)) plugin {
	t.Helper()
	kubelet := t.TempDir()
	p := plugin{registry: filepath.Join(kubelet, "plugins_registry"), socket: filepath.Join(kubelet, "plugins", "sharevol", "csi.sock")}
	if err := os.Mkdir(p.registry, 0o700); err != nil {
		t.Fatal(err)
	}
	if prepare != nil {
		prepare(p.registry)
	}
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(stop)
	p.stop, p.ended = stop, make(chan error, 1)
	go func() {
		p.ended <- run(ctx, []string{
			"--node-id=node1", "--driver-name=d", "--http-address=127.0.0.1:0", "--kubelet-dir=" + kubelet,
			"--endpoint=unix://" + p.socket, "--registration-dir=" + p.registry,
		}, &bytes.Buffer{})
	}()
	return p
}

// end waits for the program's end, after which it must have left no socket.
func (p plugin) end(t *testing.T) error {
	t.Helper()
	var err error
	select {
	case err = <-p.ended:
	case <-time.After(20 * time.Second):
		t.Fatal("it does not end")
	}
	if _, err := os.Lstat(p.socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("socket left: %v", err)
	}
	if info, err := os.Lstat(filepath.Join(p.registry, "d-reg.sock")); err == nil && info.Mode().Type() == fs.ModeSocket {
		t.Error("registration socket left")
	}
	return err
}

// kubelet does what kubelet does: it asks who is there, calls the driver at the
// socket that it was told, and says what became of that.
func (p plugin) kubelet(t *testing.T, status *registerapi.RegistrationStatus) {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+filepath.Join(p.registry, "d-reg.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	client := registerapi.NewRegistrationClient(conn)
	info, err := client.GetInfo(ctx, &registerapi.InfoRequest{}, grpc.WaitForReady(true))
	if err != nil || info.GetName() != "d" || info.GetEndpoint() != p.socket {
		t.Fatalf("kubelet was told %v, %v", info, err)
	}
	if err := csiserver.Alive(ctx, info.GetEndpoint()); err != nil {
		t.Errorf("at the endpoint: %v", err)
	}
	if _, err := client.NotifyRegistrationStatus(ctx, status); err != nil {
		t.Errorf("kubelet's word was not taken: %v", err)
	}
}

func TestRegistersItself(t *testing.T) {
	p := runPlugin(t, nil)
	p.kubelet(t, &registerapi.RegistrationStatus{PluginRegistered: true})
	p.kubelet(t, &registerapi.RegistrationStatus{PluginRegistered: true}) // a restarted kubelet
	p.stop()
	if err := p.end(t); err != nil {
		t.Error(err)
	}
}

func TestEndsWhenKubeletRefusesIt(t *testing.T) {
	p := runPlugin(t, nil)
	p.kubelet(t, &registerapi.RegistrationStatus{Error: "no such node"})
	if err := p.end(t); err == nil || !strings.Contains(err.Error(), "no such node") {
		t.Errorf("ended with %v", err)
	}
}

func TestLeavesAFileInTheRegistrationFolderAlone(t *testing.T) {
	var file string
	p := runPlugin(t, func(registry string) {
		file = filepath.Join(registry, "d-reg.sock")
		if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	})
	if err := p.end(t); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("ended with %v", err)
	}
	if content, err := os.ReadFile(file); string(content) != "x" {
		t.Errorf("it holds %q, %v", content, err)
	}
}

func TestKubeletDirWithASlashAtItsEnd(t *testing.T) {
	config := Config{DriverName: "csi.sharevol.dev", NodeID: "n", HTTPAddress: "127.0.0.1:1", KubeletDir: "/var/lib/kubelet/",
		RegistrationDir: "/var/lib/kubelet/plugins_registry", Endpoint: "unix:///var/lib/kubelet/plugins/csi.sharevol.dev/csi.sock"}
	if err := config.Validate(); err != nil {
		t.Error(err)
	}
}
