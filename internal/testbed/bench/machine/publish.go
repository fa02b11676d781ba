package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"sharevol.dev/sharevol/internal/testbed"
	"sharevol.dev/sharevol/internal/testbed/guest"
)

// What is compared: the program's calls and the bare commands.
const (
	ours = "ours"
	bare = "bare"
)

// publishing mounts and unmounts volumes of one server, by the program and by bare commands.
type publishing struct {
	plugin  *plugin
	server  *guest.NFSServer
	log     *os.File
	targets string // of the bare commands
}

// publish measures publishing and unpublishing: one volume at a time, on a node that has nothing else of the
// server mounted and on one that has; and many at once.
func (l *lab) publish(ctx context.Context) (err error) {
	p := &publishing{targets: "/run/bare"}
	if p.log, err = os.Create(filepath.Join(testbed.GuestLogs, "commands.log")); err != nil {
		return err
	}
	defer p.log.Close() // it is for people
	if p.server, err = l.server(ctx); err != nil {
		return err
	}
	if p.plugin, err = startPlugin(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.plugin.end()) }()
	single, many := l.pick(20, 3), l.pick(100, 10)
	if err := errors.Join(p.prepare(many), l.sample("publish/volumes", float64(many))); err != nil {
		return err
	}
	if _, _, err := p.once(ctx, ours, 0); err != nil { // what is only slow the first time
		return err
	}
	for range l.runs() {
		if err := l.oneByOne(ctx, p, "first", single); err != nil {
			return err
		}
	}
	if err := l.besideOthers(ctx, p, single); err != nil {
		return err
	}
	for i := range l.runs() {
		for j := range 2 {
			if err := l.together(ctx, p, []string{ours, bare}[(i+j)%2], many); err != nil {
				return err
			}
		}
	}
	return nil
}

// prepare makes n volumes, and the folders that are there before anything is mounted.
func (p *publishing) prepare(n int) error {
	for i := range n {
		if err := os.MkdirAll(p.bareTarget(i), 0o750); err != nil {
			return err
		}
	}
	return errors.Join(makeVolumes(p.server, n), p.plugin.makePods(n))
}

func (p *publishing) bareTarget(i int) string { return filepath.Join(p.targets, volume(i)) }

// besideOthers is one by one while another volume of the server is mounted all the time.
func (l *lab) besideOthers(ctx context.Context, p *publishing, n int) (err error) {
	if _, err := p.mount(ctx, bare, n); err != nil {
		return err
	}
	defer func() {
		_, unmountErr := p.unmount(ctx, bare, n)
		err = errors.Join(err, unmountErr)
	}()
	for range l.runs() {
		if err := l.oneByOne(ctx, p, "further", n); err != nil {
			return err
		}
	}
	return nil
}

// oneByOne mounts and unmounts n volumes, each by both ways in turn.
func (l *lab) oneByOne(ctx context.Context, p *publishing, name string, n int) error {
	mounts, unmounts := map[string][]float64{}, map[string][]float64{}
	for i := range n {
		for j := range 2 {
			way := []string{ours, bare}[(i+j)%2]
			mounted, unmounted, err := p.once(ctx, way, i)
			if err != nil {
				return err
			}
			mounts[way] = append(mounts[way], mounted)
			unmounts[way] = append(unmounts[way], unmounted)
		}
	}
	for _, way := range []string{ours, bare} {
		err := errors.Join(
			l.sample(fmt.Sprintf("publish/%s/%s", name, way), mounts[way]...),
			l.sample(fmt.Sprintf("unpublish/%s/%s", name, way), unmounts[way]...),
		)
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *publishing) once(ctx context.Context, way string, i int) (mounted, unmounted float64, err error) {
	if mounted, err = p.mount(ctx, way, i); err != nil {
		return 0, 0, err
	}
	unmounted, err = p.unmount(ctx, way, i)
	return mounted, unmounted, err
}

// mount mounts volume i and returns how long that took.
func (p *publishing) mount(ctx context.Context, way string, i int) (float64, error) {
	if way == ours {
		return p.plugin.publish(ctx, p.server, i)
	}
	return timed(command(ctx, p.log, "mount", "-t", "nfs", "-o", strings.Join(mountFlags, ","),
		p.server.Address+":/"+volume(i), p.bareTarget(i)))
}

func (p *publishing) unmount(ctx context.Context, way string, i int) (float64, error) {
	if way == ours {
		return p.plugin.unpublish(ctx, i)
	}
	return timed(command(ctx, p.log, "umount", p.bareTarget(i)))
}

// together mounts and then unmounts n volumes at once. The samples are of the whole.
func (l *lab) together(ctx context.Context, p *publishing, way string, n int) error {
	for _, step := range []struct {
		name string
		one  func(context.Context, string, int) (float64, error)
	}{{"publish", p.mount}, {"unpublish", p.unmount}} {
		var group errgroup.Group
		start := time.Now()
		for i := range n {
			group.Go(func() error {
				_, err := step.one(ctx, way, i)
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		if err := l.sample(fmt.Sprintf("%s/together/%s", step.name, way), milliseconds(time.Since(start))); err != nil {
			return err
		}
	}
	return nil
}
