package host

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sharevol.dev/sharevol/internal/testbed/bench/report"
	"sharevol.dev/sharevol/internal/testbed/guest"
)

// asideWithin is how long it may take until a dead share is unavailable: a little more than the deadline of an
// operation, 30 s.
const asideWithin = 90 * time.Second

const (
	firstContact     = "spread/first-contact"
	whileUnavailable = "spread/set-aside"
)

// spread measures bursts with claims waiting for a second share, which is dead: just after these came, while
// workers hang there, and once the share is unavailable.
func (l *lab) spread(ctx context.Context) ([]report.Row, error) {
	for run := range l.runs {
		for _, v := range l.alternating(run, l.alone, l.beside) {
			for _, benchmark := range []string{firstContact, whileUnavailable} {
				if err := l.spreadRound(ctx, v, run, benchmark); err != nil {
					return nil, err
				}
			}
		}
	}
	row := func(what, benchmark string) report.Row {
		r := l.samples.Compare("spread", what, benchmark, "PVs/s", l.beside.name, l.alone.name)
		r.BaseName = "without"
		return r.AtLeast(0.9)
	}
	return []report.Row{
		row("PVs/s, a dead share at first contact", firstContact),
		row("PVs/s, a dead share unavailable", whileUnavailable),
	}, nil
}

func (l *lab) spreadRound(ctx context.Context, v *variant, run int, benchmark string) error {
	o, err := l.observe(ctx)
	if err != nil {
		return err
	}
	defer o.stop()
	_, err = l.with(ctx, v, func(ctx context.Context) error {
		var waiting []string
		if v == l.beside {
			waiting = l.names(l.waiting)
		}
		if err := each(ctx, waiting, l.claim(deadClass)); err != nil {
			return err
		}
		// Long enough that the workers that the dead share gets do hang there.
		if err := sleep(ctx, settled); err != nil {
			return err
		}
		if v == l.beside && benchmark == whileUnavailable {
			if err := l.untilAside(ctx); err != nil {
				return err
			}
		}
		names := l.names(l.claims)
		if err := l.burst(ctx, o, v, run, benchmark, names); err != nil {
			return err
		}
		if err := l.remove(ctx, o, v, run, benchmark+"/delete", names); err != nil {
			return err
		}
		return each(ctx, waiting, l.unclaim)
	})
	if err != nil {
		return err
	}
	return l.untilEmpty(ctx)
}

func (l *lab) untilAside(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, asideWithin, fmt.Errorf("not within %s", asideWithin))
	defer cancel()
	return guest.WaitFor(ctx, "the dead share to be unavailable", poll, func(ctx context.Context) (bool, string, error) {
		up, err := l.beside.metric(ctx, fmt.Sprintf("sharevol_share_up{share=%q}", deadServer+":"+sharePath))
		return err == nil && up == 0, fmt.Sprint("up: ", up, err), nil
	})
}

// untilEmpty waits until no claim of the bench is left.
func (l *lab) untilEmpty(ctx context.Context) error {
	ctx, cancel := bounded(ctx, "empty")
	defer cancel()
	return guest.WaitFor(ctx, "the claims to be gone", poll, func(ctx context.Context) (bool, string, error) {
		claims, err := l.client.CoreV1().PersistentVolumeClaims(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, "", err
		}
		return len(claims.Items) == 0, fmt.Sprintf("%d claims", len(claims.Items)), nil
	})
}
