package election

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"

	"sharevol.dev/sharevol/internal/election/fakelease"
	"sharevol.dev/sharevol/internal/fence"
)

// The leader's requests are not answered any more, b's are.
func TestALeaderThatCanNotRenewStopsBeforeTheNextBegins(t *testing.T) {
	t.Parallel()
	for name, failure := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"hangs":   fakelease.Hang("a"),
		"refused": refuse("a"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := fakelease.New(t)
			a := start(t, server, "a", Options{}, nothing)
			await(t, a.leading)
			b := start(t, server, "b", Options{}, nothing)
			within(t, "a renews", func() bool { return server.Version() > 3 })
			server.Fail(failure)

			await(t, a.over)
			if err := a.fence.Check(); !errors.Is(err, fence.ErrLost) {
				t.Errorf("lead's context ended with the fence up: %v", err)
			}
			if err := await(t, a.ended); !errors.Is(err, fence.ErrLost) {
				t.Errorf("a ended with %v", err)
			}
			await(t, b.leading)
			within(t, "b writes", func() bool { first, _ := b.writes(); return first != 0 })
			first, _ := b.writes()
			if _, last := a.writes(); last >= first || a.fence.Until() >= first {
				t.Errorf("b wrote at %v; a until %v, with a fence until %v", first, last, a.fence.Until())
			}
			if a.fence.Check() == nil {
				t.Error("a may write while b leads")
			}
		})
	}
}

// refuse ends the connections of user ("" for all) without an answer.
func refuse(user string) func(http.ResponseWriter, *http.Request) bool {
	return func(_ http.ResponseWriter, r *http.Request) bool {
		if user != "" && r.UserAgent() != user {
			return false
		}
		panic(http.ErrAbortHandler)
	}
}

// nfs-subdir-external-provisioner #260, #339: a short absence of the API server
// restarted the provisioner.
func TestAShortAbsenceOfTheServerCostsNothing(t *testing.T) {
	t.Parallel()
	for name, failure := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"hangs":   fakelease.Hang(""),
		"refused": refuse(""),
		"errors": func(w http.ResponseWriter, _ *http.Request) bool {
			http.Error(w, "etcdserver: leader changed", http.StatusInternalServerError)
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := fakelease.New(t)
			// The fence holds for 5 s, and 3 s without the server must cost nothing.
			a := start(t, server, "a", Options{LeaseDuration: 6 * time.Second}, nothing)
			await(t, a.leading)
			server.Fail(failure)
			time.Sleep(2800 * time.Millisecond)
			server.Fail(nil)
			until := a.fence.Until()
			within(t, "the lease is renewed", func() bool { return a.fence.Until() > until })
			select {
			case <-a.over:
				t.Error("the lead was lost")
			default:
			}
		})
	}
}

// nfs-subdir-external-provisioner #260, #339: after a long one it hung, neither
// leading nor trying to. Here Run returns, the program ends, and the next has the
// lease again: at once if it has the same identity.
func TestALongAbsenceOfTheServerEndsTheRunAndTheNextLeads(t *testing.T) {
	t.Parallel()
	server := fakelease.New(t)
	a := start(t, server, "a", Options{}, nothing)
	await(t, a.leading)
	server.Fail(fakelease.Hang(""))
	if err := await(t, a.ended); !errors.Is(err, fence.ErrLost) {
		t.Errorf("got %v", err)
	}
	next := start(t, server, "a", Options{}, nothing)
	server.Fail(nil)
	await(t, next.leading)
}

// A lead that does not end, and a server that does not answer, keep Run for a second.
func TestRunReturnsWhateverLeadDoes(t *testing.T) {
	t.Parallel()
	server := fakelease.New(t)
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	a := start(t, server, "a", Options{}, func() error { <-release; return nil })
	await(t, a.leading)
	server.Fail(fakelease.Hang(""))
	if err := await(t, a.ended); !errors.Is(err, fence.ErrLost) {
		t.Errorf("got %v", err)
	}
}

// The machine slept: the boot-time clock went on, every other stood still. The
// server would have let a renew.
func TestASleepOfTheMachineEndsTheLead(t *testing.T) {
	t.Parallel()
	server := fakelease.New(t)
	clock := &boot{now: time.Hour}
	a := start(t, server, "a", Options{Fence: &fence.Fence{Clock: clock.read}}, nothing)
	await(t, a.leading)
	clock.pass(time.Minute)
	if err := a.fence.Check(); !errors.Is(err, fence.ErrLost) {
		t.Errorf("awake again: %v", err)
	}
	err := await(t, a.ended)
	if !errors.Is(err, fence.ErrLost) || !strings.Contains(err.Error(), "ran out") {
		t.Errorf("got %v", err)
	}
	if a.fence.Check() == nil {
		t.Error("a renewal brought the lead back")
	}
}

func TestAnEditedLease(t *testing.T) {
	t.Parallel()
	t.Run("another write of it is no loss", func(t *testing.T) {
		t.Parallel()
		server := fakelease.New(t)
		a := start(t, server, "a", Options{}, nothing)
		await(t, a.leading)
		for range 3 {
			server.Edit(func(lease *coordinationv1.Lease) { lease.Labels = map[string]string{"team": "storage"} })
			version, until := server.Version(), a.fence.Until()
			within(t, "it is renewed", func() bool { return server.Version() > version && a.fence.Until() > until })
		}
		a.stop()
		if err := await(t, a.ended); err != nil || server.Holder() != "" {
			t.Errorf("ended with %v, held by %q", err, server.Holder())
		}
	})
	t.Run("another holder ends the lead before it runs out", func(t *testing.T) {
		t.Parallel()
		server := fakelease.New(t)
		a := start(t, server, "a", Options{LeaseDuration: 60 * time.Second, RetryPeriod: 50 * time.Millisecond}, nothing)
		await(t, a.leading)
		server.Edit(func(lease *coordinationv1.Lease) { other := "kubectl"; lease.Spec.HolderIdentity = &other })
		err := await(t, a.ended)
		if !errors.Is(err, fence.ErrLost) || !strings.Contains(err.Error(), `"kubectl"`) {
			t.Errorf("got %v", err)
		}
		if a.fence.Check() == nil || server.Holder() != "kubectl" {
			t.Errorf("fence %v, holder %q", a.fence.Check(), server.Holder())
		}
	})
}
