package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"sharevol.dev/sharevol/internal/testbed"
	"sharevol.dev/sharevol/internal/testbed/guest"
)

const (
	// latency is that of the way to the server.
	latency = time.Millisecond
	// The mount is the provisioner's, as kubelet makes it for one that may not mount, and that of what it is
	// compared with.
	removeMount = "/run/bench-share"
	removeClass = "remove"
)

// Ways to remove a directory, besides ours.
const (
	removeCommand = "rm -rf"
	removeAll     = "os.RemoveAll"

	// oursAlone is ours without what the API server and the controllers do before and after.
	oursAlone = "ours, directory"
	trashPoll = 5 * time.Millisecond
)

// removing removes directories on one mount.
type removing struct {
	l            *lab
	client       kubernetes.Interface
	server       *guest.NFSServer
	log          *os.File
	folders, per int // directories of a volume, and files in each
	made         int
}

// remove measures how long it takes to remove a volume with many files on a server that is some way off, and
// what another client of the server notices.
func (l *lab) remove(ctx context.Context) (err error) {
	cluster, err := l.controlPlane(ctx)
	if err != nil {
		return err
	}
	r := &removing{l: l, client: cluster.Client(), folders: l.pick(200, 20), per: 100}
	if r.log, err = os.Create(filepath.Join(testbed.GuestLogs, "remove.log")); err != nil {
		return err
	}
	defer r.log.Close() // it is for people
	if r.server, err = l.server(ctx); err != nil {
		return err
	}
	if err := r.server.Delay(ctx, latency); err != nil {
		return err
	}
	unmount, err := r.mountShare(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unmount()) }()
	provisioner, err := startProvisioner(ctx, "--premounted="+r.server.Address+":/="+removeMount)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, provisioner.stop()) }()
	if err := makeClass(ctx, r.client, removeClass, r.server, "/"); err != nil {
		return err
	}
	defer func() { // a provisioner looks at the shares of all classes
		err = errors.Join(err, r.client.StorageV1().StorageClasses().Delete(context.WithoutCancel(ctx), removeClass, metav1.DeleteOptions{}))
	}()
	if err := l.sample("rm/files", float64(r.folders*r.per)); err != nil {
		return err
	}
	other, err := startOther(ctx, r.server)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, other.close(ctx)) }()
	for i := range l.runs() {
		ways := []string{ours, removeCommand, removeAll}
		for j := range ways {
			if err := l.removeOnce(ctx, r, other, ways[(i+j)%len(ways)]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *removing) mountShare(ctx context.Context) (unmount func() error, err error) {
	if err := os.MkdirAll(removeMount, 0o755); err != nil {
		return nil, err
	}
	_, err = timed(command(ctx, r.log, "mount", "-t", "nfs", "-o", strings.Join(mountFlags, ","), r.server.Address+":/", removeMount))
	return func() error {
		_, err := timed(command(context.WithoutCancel(ctx), r.log, "umount", removeMount))
		return err
	}, err
}

// removeOnce fills a new directory, on the server's side so that the client knows nothing of it, and removes it.
func (l *lab) removeOnce(ctx context.Context, r *removing, other *other, way string) error {
	r.made++
	name := fmt.Sprintf("remove-%d", r.made)
	dir, volume := name, ""
	if way == ours {
		pv, err := makeClaim(ctx, r.client, name, removeClass)
		if err != nil {
			return err
		}
		dir, volume = pv.Spec.CSI.VolumeAttributes["subDir"], pv.Name
	}
	if err := r.fill(dir); err != nil {
		return err
	}
	before, err := other.during(ctx, func() error {
		time.Sleep(time.Duration(l.pick(5, 1)) * time.Second)
		return nil
	})
	if err != nil {
		return err
	}
	var took float64
	during, err := other.during(ctx, func() (err error) {
		took, err = r.by(ctx, way, name, dir, volume)
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", way, err)
	}
	if err := r.gone(dir, volume); err != nil {
		return fmt.Errorf("%s: %w", way, err)
	}
	l.note("%s of %d files took %.1fs", way, r.folders*r.per, took/1000)
	return errors.Join(l.sample("rm/"+way, took), l.sample("rm/other/before/"+way, before...), l.sample("rm/other/during/"+way, during...))
}

// watchTrash sends how long a volume has been in the trash, in milliseconds, as seen on the server: once it is gone
// from there, or 0 when it has not been seen until ctx ends.
func (r *removing) watchTrash(ctx context.Context, volume string) <-chan float64 {
	took := make(chan float64, 1)
	go func() {
		path := r.server.Dir(filepath.Join(".sharevol/trash", volume))
		var since time.Time
		for {
			last := ctx.Err() != nil
			_, err := os.Lstat(path)
			switch {
			case err == nil && since.IsZero():
				since = time.Now()
			case err != nil && !since.IsZero():
				took <- milliseconds(time.Since(since))
				return
			case last: // it was gone too soon to be seen
				took <- 0
				return
			}
			time.Sleep(trashPoll)
		}
	}()
	return took
}

// gone returns an error if something is left of a volume on the server; one of the other ways has no name.
func (r *removing) gone(dir, volume string) error {
	paths := []string{dir}
	if volume != "" {
		paths = append(paths, filepath.Join(".sharevol/trash", volume))
	}
	for _, path := range paths {
		if _, err := os.Lstat(r.server.Dir(path)); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is left: %v", path, err)
		}
	}
	return nil
}

// fill makes the tree that is to be removed.
func (r *removing) fill(dir string) error {
	for i := range r.folders {
		folder := filepath.Join(r.server.Dir(dir), fmt.Sprintf("folder-%d", i))
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return fmt.Errorf("fill a volume: %w", err)
		}
		for j := range r.per {
			if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("file-%d", j)), nil, 0o644); err != nil {
				return fmt.Errorf("fill a volume: %w", err)
			}
		}
	}
	return nil
}

// by removes a directory in one of the ways and returns how long it took, in milliseconds. Ours is from the
// claim's deletion until the volume is gone, with all that the API server does in between.
func (r *removing) by(ctx context.Context, way, claim, dir, volume string) (float64, error) {
	path := filepath.Join(removeMount, dir)
	switch way {
	case ours:
		watching, cancel := context.WithCancel(ctx)
		alone := r.watchTrash(watching, volume)
		took, err := deleteClaim(ctx, r.client, claim, volume)
		cancel()
		return took, errors.Join(err, r.l.sample("rm/"+oursAlone, <-alone))
	case removeCommand:
		return timed(command(ctx, r.log, "rm", "-rf", path))
	}
	start := time.Now()
	err := os.RemoveAll(path)
	return milliseconds(time.Since(start)), err
}
