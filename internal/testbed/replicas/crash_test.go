package replicas

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sharevol.dev/sharevol/internal/testbed/controlplane"
)

// orphanPoint is where a crash leaves a directory and its record, and no volume.
const orphanPoint = "provisioned"

// crasher is a provisioner that ends at a fault point, once.
type crasher struct {
	*ledger
	provisioner *controlplane.Provisioner
	env         []string
	marker      string // the file that says that the point was reached
	crashes     int
}

// arm starts the provisioner so that it ends at a point.
func (c *crasher) arm(ctx context.Context, point, purpose string) error {
	c.marker = filepath.Join(c.lab.dir, c.name+"-"+purpose)
	c.env = []string{"SHAREVOL_FAULT=" + point, "SHAREVOL_FAULT_MARKER=" + c.marker}
	return c.provisioner.Start(ctx, c.env...)
}

// crashed reports whether the provisioner has ended at its point; ending in any other way is an error.
func (c *crasher) crashed() (bool, error) {
	state := c.provisioner.State()
	if state == nil {
		return false, nil
	}
	if _, err := os.Stat(c.marker); err != nil || !c.provisioner.Killed() {
		return true, fmt.Errorf("it ended with %s, and not at its fault point: %v", state, err)
	}
	return true, nil
}

// settle waits for what is asked of the provisioner, and starts it again when it has ended at its point.
func (c *crasher) settle(ctx context.Context) error {
	return c.ledger.settle(ctx, func() error {
		crashed, err := c.crashed()
		if err != nil || !crashed {
			return err
		}
		if c.crashes++; c.crashes > 1 {
			return fmt.Errorf("it ended %d times at one fault point", c.crashes)
		}
		if err := c.provisioner.Gone(ctx); err != nil {
			return err
		}
		return c.provisioner.Start(ctx, c.env...)
	})
}

// orphan leaves a record and a directory on the share whose volume was never saved and whose claim is gone.
// The provisioner does not run afterwards.
func (c *crasher) orphan(ctx context.Context, k kind) error {
	if err := c.arm(ctx, orphanPoint, "orphan"); err != nil {
		return err
	}
	if err := c.create(ctx, "orphan", k); err != nil {
		return err
	}
	err := waitFor(ctx, "the crash that leaves a record", 30*time.Second, func(context.Context) (bool, string, error) {
		crashed, err := c.crashed()
		return crashed, "it runs", err
	})
	if err != nil {
		return err
	}
	if err := c.remove(ctx, "orphan"); err != nil {
		return err
	}
	if err := c.provisioner.Gone(ctx); err != nil {
		return err
	}
	return c.ledger.settle(ctx, func() error { return nil }) // the claim goes without the provisioner
}

// The program is killed once at each of its fault points, while claims of one kind are made and deleted, for each
// kind; and once where an earlier crash has left an orphan for it to find. After the next start all is as if it
// had not been.
func TestCrashAtEveryStep(t *testing.T) {
	t.Parallel()
	ctx, lab := theLab(t, 8*time.Minute)
	points := faultPoints(t, lab.host.Root())
	if !slices.Contains(points, orphanPoint) {
		t.Fatalf("there is no fault point %s any more", orphanPoint)
	}
	began, crashes := time.Now(), 0
	for i, point := range points {
		t.Run(point, func(t *testing.T) {
			var reached []string
			for _, k := range allKinds {
				if crashAt(ctx, t, lab, fmt.Sprintf("crash-%d-%s", i, k.name), point, k, false) {
					reached = append(reached, k.name)
				}
			}
			if crashAt(ctx, t, lab, fmt.Sprintf("crash-%d-orphan", i), point, nested, true) {
				reached = append(reached, "orphan")
			}
			if len(reached) == 0 {
				t.Errorf("the fault point is never reached")
			}
			crashes += len(reached)
			t.Logf("killed with: %s", strings.Join(reached, ", "))
		})
	}
	t.Logf("killed %d times at %d points in %s", crashes, len(points), time.Since(began).Round(time.Second))
}

// crashAt has the program killed at a point, if it comes there, and reports whether it did.
func crashAt(ctx context.Context, t *testing.T, lab *lab, name, point string, k kind, orphan bool) (reached bool) {
	t.Helper()
	p := newPlace(ctx, t, lab, lab.cluster, name, name, k)
	c := &crasher{ledger: newLedger(p), provisioner: p.provisioner(t, point, lab.faulty, "--leader-elect=false")}
	if orphan {
		check(t, c.orphan(ctx, k))
	}
	check(t, c.arm(ctx, point, "point"))
	for _, name := range []string{"first", "second", "third"} {
		check(t, c.create(ctx, name, k))
	}
	check(t, c.settle(ctx))
	check(t, c.remove(ctx, "first"))
	check(t, c.remove(ctx, "second"))
	check(t, c.settle(ctx))
	_, err := os.Stat(c.marker)
	if reached = err == nil; reached != (c.crashes == 1) {
		t.Errorf("%d crashes, %v", c.crashes, err)
	}
	restart(ctx, t, c.provisioner)
	c.endState(ctx, t)
	check(t, c.removeAll(ctx))
	check(t, c.settle(ctx))
	c.endState(ctx, t)
	stop(ctx, t, c.provisioner)
	return reached
}
