// Package fakelease is an API server, over HTTP, that knows one Lease: with the
// resource versions and conflicts of a real one, and the failures that a test wants.
package fakelease

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// The Lease that a Server knows.
const (
	Namespace = "sharevol"
	Name      = "csi.sharevol.dev"
)

const path = "/apis/coordination.k8s.io/v1/namespaces/" + Namespace + "/leases"

var resource = schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}

// Server is the API server. Its methods may be called concurrently.
type Server struct {
	URL string

	mu      sync.Mutex
	failure func(http.ResponseWriter, *http.Request) bool
	lease   *coordinationv1.Lease // nil: there is none
	version int
}

// New returns a server that has no Lease yet and ends with the test.
func New(t testing.TB) *Server {
	s := &Server{}
	server := httptest.NewServer(s)
	t.Cleanup(func() {
		server.CloseClientConnections() // ends what hangs
		server.Close()
	})
	s.URL = server.URL
	return s
}

// Client returns a client whose requests have user as their User-Agent, so that a
// failure can be one process's.
func Client(t testing.TB, url, user string) kubernetes.Interface {
	t.Helper()
	client, err := kubernetes.NewForConfig(&rest.Config{
		Host: url, UserAgent: user, QPS: 1000, Burst: 1000,
		ContentConfig: rest.ContentConfig{ContentType: "application/json", AcceptContentTypes: "application/json"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// Fail has failure see each request first. It returns false for those that the
// server is to answer as usual. Nil ends it.
func (s *Server) Fail(failure func(http.ResponseWriter, *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failure = failure
}

// Hang is a failure: requests of user ("" for all) are not answered.
func Hang(user string) func(http.ResponseWriter, *http.Request) bool {
	return func(_ http.ResponseWriter, r *http.Request) bool {
		if user != "" && r.UserAgent() != user {
			return false
		}
		<-r.Context().Done()
		return true
	}
}

// Holder returns who holds the Lease, empty if nobody does.
func (s *Server) Holder() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lease == nil || s.lease.Spec.HolderIdentity == nil {
		return ""
	}
	return *s.lease.Spec.HolderIdentity
}

// Version counts the writes of the Lease.
func (s *Server) Version() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.version
}

// Edit changes the Lease as somebody with kubectl could.
func (s *Server) Edit(change func(*coordinationv1.Lease)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lease == nil {
		s.lease = &coordinationv1.Lease{}
		s.lease.Namespace, s.lease.Name = Namespace, Name
	}
	change(s.lease)
	s.bump(s.lease)
}

func (s *Server) bump(lease *coordinationv1.Lease) {
	s.version++
	lease.ResourceVersion = strconv.Itoa(s.version)
	lease.Kind, lease.APIVersion = "Lease", "coordination.k8s.io/v1"
	s.lease = lease
}

// ServeHTTP answers get, create and update of the Lease.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	failure := s.failure
	s.mu.Unlock()
	var sent coordinationv1.Lease
	if r.Method == http.MethodPost || r.Method == http.MethodPut {
		// Read before a failure: net/http sees that a client has gone only then.
		if err := json.NewDecoder(r.Body).Decode(&sent); err != nil {
			answer(w, http.StatusBadRequest, err.Error())
			return
		}
	}
	if failure != nil && failure(w, r) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch at := strings.TrimPrefix(r.URL.Path, path); {
	case r.Method == http.MethodPost && at == "":
		s.create(w, &sent)
	case r.Method == http.MethodGet && at == "/"+Name && s.lease != nil:
		answer(w, http.StatusOK, s.lease)
	case r.Method == http.MethodPut && at == "/"+Name && s.lease != nil:
		s.update(w, &sent)
	default:
		refuse(w, apierrors.NewNotFound(resource, Name))
	}
}

func (s *Server) create(w http.ResponseWriter, sent *coordinationv1.Lease) {
	if s.lease != nil {
		refuse(w, apierrors.NewAlreadyExists(resource, Name))
		return
	}
	s.bump(sent)
	answer(w, http.StatusCreated, sent)
}

func (s *Server) update(w http.ResponseWriter, sent *coordinationv1.Lease) {
	switch seconds := sent.Spec.LeaseDurationSeconds; {
	case sent.ResourceVersion != s.lease.ResourceVersion:
		refuse(w, apierrors.NewConflict(resource, Name, nil))
	case seconds == nil || *seconds <= 0:
		refuse(w, apierrors.NewBadRequest("spec.leaseDurationSeconds must be greater than 0"))
	default:
		s.bump(sent)
		answer(w, http.StatusOK, sent)
	}
}

func refuse(w http.ResponseWriter, err *apierrors.StatusError) {
	status := err.Status()
	status.Kind, status.APIVersion = "Status", "v1"
	answer(w, int(status.Code), status)
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}
