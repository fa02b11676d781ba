package kubeclient

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
)

// requests is an API server that notes what reached it, and from where.
type requests struct {
	mu   sync.Mutex
	seen []string
	from map[string]bool
}

func (r *requests) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	_, _ = io.Copy(io.Discard, request.Body)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, request.Method)
	r.from[request.RemoteAddr] = true
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte(`{"kind":"PersistentVolume","apiVersion":"v1","metadata":{"name":"pv"}}`))
}

// take returns the methods seen since the last call.
func (r *requests) take() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := strings.Join(r.seen, " ")
	r.seen = nil
	return seen
}

func serve(t *testing.T) (*requests, Options) {
	t.Helper()
	r := &requests{from: map[string]bool{}}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	return r, Options{Kubeconfig: kubeconfig(t, server.URL), QPS: 1000, Burst: 1000}
}

func newClient(t *testing.T, options Options) kubernetes.Interface {
	t.Helper()
	client, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// A leader that lost its lease still has workers that would save volumes.
func TestNothingIsWrittenBehindTheFence(t *testing.T) {
	server, options := serve(t)
	errFence := errors.New("lease lost 3s ago")
	closed := true
	options.Fence = func() error {
		if closed {
			return errFence
		}
		return nil
	}
	volumes := newClient(t, options).CoreV1().PersistentVolumes()
	ctx := t.Context()
	pv := &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}}
	writes := map[string]func() error{
		"POST": func() error { _, err := volumes.Create(ctx, pv, metav1.CreateOptions{}); return err },
		"PUT":  func() error { _, err := volumes.Update(ctx, pv, metav1.UpdateOptions{}); return err },
		"PATCH": func() error {
			_, err := volumes.Patch(ctx, "pv", types.MergePatchType, []byte("{}"), metav1.PatchOptions{})
			return err
		},
		"DELETE": func() error { return volumes.Delete(ctx, "pv", metav1.DeleteOptions{}) },
	}
	for method, write := range writes {
		err := write()
		if !errors.Is(err, ErrNotSent) || !errors.Is(err, errFence) {
			t.Errorf("%s: %v", method, err)
		}
	}
	if _, err := volumes.Get(ctx, "pv", metav1.GetOptions{}); err != nil {
		t.Errorf("a read: %v", err)
	}
	if seen := server.take(); seen != "GET" {
		t.Errorf("sent %s", seen)
	}
	closed = false
	for method, write := range writes {
		if err := write(); err != nil || server.take() != method {
			t.Errorf("%s, with the fence open: %v", method, err)
		}
	}
}

// A write that passed the fence waits for its connection, or for its answer: it is
// given up with the fence, and sent by no means.
func TestTheFenceEndsWhatIsOnItsWay(t *testing.T) {
	errFence := errors.New("lease lost")
	for name, wait := range map[string]string{"in vain for a connection": "dial", "for a connection": "late dial", "for an answer": "answer"} {
		t.Run(name, func(t *testing.T) {
			var over atomic.Bool
			release := make(chan struct{})
			reached := make(chan struct{}, 1)
			var after atomic.Int32
			server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				if _, err := io.Copy(io.Discard, r.Body); err == nil && over.Load() {
					after.Add(1)
				}
				reached <- struct{}{}
				select {
				case <-release:
				case <-r.Context().Done():
				}
			}))
			defer server.Close()
			defer close(release)
			transport := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				switch wait {
				case "dial":
					reached <- struct{}{}
					<-ctx.Done()
					return nil, ctx.Err()
				case "late dial": // the process is stopped here, and wakes with the connection made
					over.Store(true)
				}
				return (&net.Dialer{}).DialContext(ctx, network, address)
			}}
			defer transport.CloseIdleConnections()
			rt := fence{next: deadline{next: transport, timeout: callTimeout}, check: func() error {
				if over.Load() {
					return errFence
				}
				return nil
			}}
			if wait != "late dial" {
				go func() {
					<-reached
					over.Store(true)
				}()
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			request, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL, strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			response, err := rt.RoundTrip(request)
			if response != nil {
				_ = response.Body.Close()
			}
			if !errors.Is(err, errFence) || ctx.Err() != nil || after.Load() > 0 {
				t.Errorf("%v, %d sent after the fence's end", err, after.Load())
			}
		})
	}
}

type body struct {
	io.Reader
	closed bool
}

func (b *body) Close() error {
	b.closed = true
	return nil
}

// net/http leaves closing to the transport, even of what was not sent.
func TestFenceClosesTheBody(t *testing.T) {
	content := &body{Reader: strings.NewReader("{}")}
	request, err := http.NewRequest(http.MethodPost, "http://localhost/", content)
	if err != nil {
		t.Fatal(err)
	}
	response, err := fence{next: http.DefaultTransport, check: func() error { return io.EOF }}.RoundTrip(request)
	if response != nil {
		_ = response.Body.Close()
	}
	if err == nil || !content.closed {
		t.Errorf("got %v, closed: %v", err, content.closed)
	}
}

func TestFaultPoints(t *testing.T) {
	const volumes = "/api/v1/persistentvolumes"
	for request, want := range map[string]string{
		"POST " + volumes:                 "pv-saved",
		"DELETE " + volumes + "/pv":       "pv-deleted",
		"PUT " + volumes + "/pv":          "pv-updated",
		"PATCH " + volumes + "/pv":        "pv-updated",
		"GET " + volumes + "/pv":          "",
		"PUT " + volumes + "/pv/status":   "",
		"POST /api/v1/namespaces":         "",
		"DELETE /api/v1/namespaces/pv":    "",
		"POST " + volumes + "/pv/binding": "",
	} {
		method, path, _ := strings.Cut(request, " ")
		if got := pointAfter(httptest.NewRequest(method, path, nil)); got != want {
			t.Errorf("%s: %q, want %q", request, got, want)
		}
	}
}

func TestAckTimeoutMakesAConnectionOfItsOwn(t *testing.T) {
	server, options := serve(t)
	get := func(client kubernetes.Interface) int {
		t.Helper()
		if _, err := client.CoreV1().PersistentVolumes().Get(t.Context(), "pv", metav1.GetOptions{}); err != nil {
			t.Fatal(err)
		}
		server.mu.Lock()
		defer server.mu.Unlock()
		return len(server.from)
	}
	work, more := newClient(t, options), newClient(t, options)
	options.AckTimeout = time.Second
	lease := newClient(t, options)
	if get(work) != 1 || get(more) != 1 {
		t.Fatal("clients share no connection: this test says nothing")
	}
	if connections := get(lease); connections != 2 {
		t.Errorf("%d connections", connections)
	}
	if connections := get(work); connections != 2 {
		t.Errorf("%d connections", connections)
	}
}

func TestAckTimeoutIsTheKernels(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	connection, err := impatientDialer(1500*time.Millisecond).DialContext(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = connection.Close() }()
	raw, err := connection.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var timeout int
	if failed := raw.Control(func(fd uintptr) {
		timeout, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
	}); failed != nil || err != nil || timeout != 1500 {
		t.Errorf("%d ms: %v, %v", timeout, failed, err)
	}
}

func TestClusterID(t *testing.T) {
	ctx := context.Background()
	namespace := &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: "8d1f"}}
	if id, err := ClusterID(ctx, fake.NewClientset(namespace)); id != "8d1f" || err != nil {
		t.Errorf("got %q, %v", id, err)
	}
	if id, err := ClusterID(ctx, fake.NewClientset()); id != "" || err == nil {
		t.Errorf("without the namespace: %q, %v", id, err)
	}
	namespace.UID = ""
	if id, err := ClusterID(ctx, fake.NewClientset(namespace)); id != "" || err == nil {
		t.Errorf("without a UID: %q, %v", id, err)
	}
}
