package registration

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const (
	driver   = "csi.example.com"
	endpoint = "/kubelet/plugins/csi.example.com/csi.sock"
	// within is more than enough for whatever is waited for here.
	within = 10 * time.Second
)

// running is a registration that is being served.
type running struct {
	dir, socket string
	stop        context.CancelFunc
	ended       chan error
}

func options(dir string) Options {
	return Options{Dir: dir, Driver: driver, Endpoint: endpoint, Check: 10 * time.Millisecond}
}

func start(t *testing.T, dir string) running {
	t.Helper()
	r, err := Listen(options(dir))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(stop)
	ended := make(chan error, 1)
	go func() { ended <- r.Serve(ctx) }()
	return running{dir: dir, socket: filepath.Join(dir, "csi.example.com-reg.sock"), stop: stop, ended: ended}
}

// end waits for the end, and returns what it ended with.
func (r running) end(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.ended:
		return err
	case <-time.After(within):
		t.Fatal("it does not end")
		return nil
	}
}

// names are the entries of the folder.
func (r running) names(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// kubelet does what kubelet does with a socket in its folder: it asks who is there,
// and says what became of that.
func (r running) kubelet(t *testing.T, status *registerapi.RegistrationStatus) *registerapi.PluginInfo {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+r.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	client := registerapi.NewRegistrationClient(conn)
	info, err := client.GetInfo(ctx, &registerapi.InfoRequest{}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.NotifyRegistrationStatus(ctx, status); err != nil {
		t.Errorf("kubelet's word was not taken: %v", err)
	}
	return info
}

var registered = &registerapi.RegistrationStatus{PluginRegistered: true}

func TestKubeletIsToldOfTheDriver(t *testing.T) {
	r := start(t, t.TempDir())
	info := r.kubelet(t, registered)
	if info.GetType() != "CSIPlugin" || info.GetName() != driver || info.GetEndpoint() != endpoint || !slices.Equal(info.GetSupportedVersions(), []string{"1.0.0"}) {
		t.Errorf("kubelet was told %v", info)
	}
	// kubelet ignores names that begin with a dot.
	if names := r.names(t); !slices.Equal(names, []string{"csi.example.com-reg.sock"}) {
		t.Errorf("in the folder: %q", names)
	}
	if mode, err := os.Lstat(r.socket); err != nil || mode.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("mode %v, %v", mode, err)
	}
	select {
	case err := <-r.ended:
		t.Fatalf("it ended: %v", err)
	case <-time.After(50 * time.Millisecond): // a few checks of the socket
	}
	r.stop()
	if err := r.end(t); err != nil {
		t.Error(err)
	}
	if names := r.names(t); len(names) > 0 {
		t.Errorf("left in the folder: %q", names)
	}
}

// As with node-driver-registrar: the next start tries again.
func TestARefusalEndsIt(t *testing.T) {
	r := start(t, t.TempDir())
	r.kubelet(t, &registerapi.RegistrationStatus{Error: "no such node"})
	err := r.end(t)
	for _, want := range []string{"no such node", driver, endpoint} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ended with %v, which does not say %q", err, want)
		}
	}
	if names := r.names(t); len(names) > 0 {
		t.Errorf("left in the folder: %q", names)
	}
}

func TestAnOpenConnectionHoldsUpNoStop(t *testing.T) {
	for name, words := range map[string]string{
		"silent":                   "",
		"silent after the preface": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", // RFC 9113, 3.4: with empty SETTINGS
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, t.TempDir())
			conn, err := net.Dial("unix", r.socket)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			if _, err := conn.Write([]byte(words)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(50 * time.Millisecond) // until it was accepted
			started := time.Now()
			r.stop()
			if err := r.end(t); err != nil {
				t.Error(err)
			}
			if took := time.Since(started); took > 5*time.Second {
				t.Errorf("the stop took %v", took)
			}
		})
	}
}

func TestARemovedSocketIsMadeAgain(t *testing.T) {
	r := start(t, t.TempDir())
	for range 3 {
		r.kubelet(t, registered)
		if err := os.Remove(r.socket); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(within); len(r.names(t)) == 0; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the socket stays away")
			}
		}
	}
	r.kubelet(t, registered)
	r.stop()
	if err := r.end(t); err != nil || len(r.names(t)) > 0 {
		t.Errorf("%v, left in the folder: %q", err, r.names(t))
	}
}

// Only a new container sees the folder that was made in place of this one.
func TestARemovedFolderEndsIt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "registry")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r := start(t, dir)
	r.kubelet(t, registered)
	if err := os.RemoveAll(r.dir); err != nil {
		t.Fatal(err)
	}
	if err := r.end(t); err == nil || !strings.Contains(err.Error(), r.socket) {
		t.Errorf("ended with %v", err)
	}
}

// What another process has put in the socket's place stays, also at the end.
func TestWhatIsInTheSocketsPlaceStays(t *testing.T) {
	r := start(t, t.TempDir())
	r.kubelet(t, registered)
	other := filepath.Join(r.dir, "other")
	if err := os.WriteFile(other, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(other, r.socket); err != nil {
		t.Fatal(err)
	}
	if err := r.end(t); err == nil || !strings.Contains(err.Error(), r.socket) {
		t.Errorf("ended with %v", err)
	}
	if content, err := os.ReadFile(r.socket); string(content) != "x" {
		t.Errorf("it holds %q, %v", content, err)
	}
}

func TestListenReplacesAStaleSocketOnly(t *testing.T) {
	dir := t.TempDir()
	stale, err := net.Listen("unix", Socket(dir, driver))
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false) // as a killed process leaves it
	if err := stale.Close(); err != nil {
		t.Fatal(err)
	}
	r := start(t, dir)
	r.kubelet(t, registered)
	r.stop()
	if err := r.end(t); err != nil {
		t.Fatal(err)
	}

	if err := os.WriteFile(r.socket, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(options(dir)); err == nil || !strings.Contains(err.Error(), "is not a socket") {
		t.Errorf("a file in the socket's place: %v", err)
	}
	if content, err := os.ReadFile(r.socket); string(content) != "x" {
		t.Errorf("it holds %q, %v", content, err)
	}
	missing := filepath.Join(dir, "missing")
	if _, err := Listen(options(missing)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder that is not there: %v", err)
	}
	if _, err := os.Lstat(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it was made, where kubelet would not look: %v", err)
	}
}
