package node_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestOneCallAtATimeForATarget(t *testing.T) {
	f := newFixture(t)
	f.mounter.Block = make(chan struct{})
	first := make(chan error, 1)
	go func() { first <- f.tryPublish(unchanged) }()
	eventually(t, "the first call does not mount", func() bool { return len(f.mounter.Calls()) > 0 })
	if err := f.tryPublish(unchanged); status.Code(err) != codes.Aborted {
		t.Errorf("a second publish: %v", err)
	}
	bad := func(r *csi.NodePublishVolumeRequest) { r.VolumeContext["subDir"] = "../other" }
	if err := f.tryPublish(bad); status.Code(err) != codes.Aborted {
		t.Errorf("a publish with faults: %v", err)
	}
	if err := f.unpublish(); status.Code(err) != codes.Aborted {
		t.Errorf("unpublish: %v", err)
	}
	close(f.mounter.Block)
	if err := <-first; err != nil {
		t.Error(err)
	}
	if err := f.unpublish(); err != nil {
		t.Error(err)
	}
}

// Of 50 publishes 10 go to a server that does not answer. The others do not notice.
func TestADeadServerHoldsUpItsOwnVolumesAlone(t *testing.T) {
	f := newFixture(t)
	f.mounter.Export("dead:/srv", t.TempDir())
	f.mounter.Block, f.mounter.BlockSource = make(chan struct{}), "dead:/srv"
	var dead, alive sync.WaitGroup
	for i := range 10 {
		target := f.newTarget(t, fmt.Sprint("dead-", i), "pvc")
		dead.Go(func() {
			err := f.tryPublish(func(r *csi.NodePublishVolumeRequest) {
				r.TargetPath, r.VolumeContext = target, map[string]string{"server": "dead", "share": "/srv"}
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, "not all of them mount", func() bool { return len(f.mounter.Calls()) == 10 })
	for i := range 40 {
		target := f.newTarget(t, fmt.Sprint("alive-", i), "pvc")
		alive.Go(func() {
			if err := f.tryPublish(to(target)); err != nil {
				t.Error(err)
			}
		})
	}
	done := make(chan struct{})
	go func() { alive.Wait(); close(done) }()
	eventually(t, "they wait for the dead server", func() bool {
		select {
		case <-done:
			return true
		default:
			return false
		}
	})
	close(f.mounter.Block)
	dead.Wait()
}
