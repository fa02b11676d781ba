package guest

import (
	"context"
	"fmt"
	"time"
)

// Check looks at something that takes time. The state says, for a person, how far it has come. An error
// is final; what may pass by itself belongs into the state.
type Check func(ctx context.Context) (done bool, state string, err error)

// WaitFor runs check at once and then every interval, until it is done or fails or ctx ends. The error
// of a wait in vain says what was waited for and how it last stood.
func WaitFor(ctx context.Context, what string, every time.Duration, check Check) error {
	start, state := time.Now(), "nothing known"
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		done, now, err := check(ctx)
		switch {
		case done && err == nil:
			return nil
		case err != nil && ctx.Err() == nil:
			return fmt.Errorf("wait for %s: %w", what, err)
		case now != "" && ctx.Err() == nil:
			state = now // once ctx has ended, a check sees nothing but that
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited %s for %s; last seen: %s (%w)",
				time.Since(start).Round(time.Second), what, state, context.Cause(ctx))
		case <-ticker.C:
		}
	}
}
