package machine

import (
	"context"
	"testing"
)

// The short form is tested with the program, which measures everything.
func TestUnknownArea(t *testing.T) {
	if _, err := Run(context.Background(), Options{Areas: []string{"nothing"}}); err == nil {
		t.Error("no error")
	}
}
