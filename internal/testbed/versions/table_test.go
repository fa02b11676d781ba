package versions

import (
	"cmp"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"sharevol.dev/sharevol/internal/testbed"
)

// What stands between these in README is the table, which UPDATE_GOLDEN=1 rewrites.
const (
	tableBegin = "<!-- what internal/testbed/versions has tested: made by its run -->\n"
	tableEnd   = "<!-- end -->\n"
)

// results are what the tests have seen. They may be told by several goroutines at once.
type results struct {
	mu   sync.Mutex
	seen map[testbed.Release]*column
}

type column struct {
	version       string // as the API server says it
	kustomization string
	cells         map[string]string // by promise
}

func newResults() *results { return &results{seen: map[testbed.Release]*column{}} }

func (r *results) begin(release testbed.Release, version, kustomization string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen[release] = &column{version: version, kustomization: kustomization, cells: map[string]string{}}
}

func (r *results) kept(release testbed.Release, promise, cell string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen[release].cells[promise] = cell
}

// table has a column for each release and a row for each promise.
func (r *results) table() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	head, line, applied := "| Kubernetes", "|---", "| `kubectl apply -k`"
	rows := make([]string, len(promises))
	for i, promise := range promises {
		rows[i] = "| " + promise.text
	}
	for _, one := range supported {
		seen := r.seen[one.release]
		if seen == nil {
			seen = &column{version: one.release.String()}
		}
		head, line = head+" | "+seen.version, line+"|---"
		applied += " | `" + filepath.Join("manifests", seen.kustomization) + "`"
		for i, promise := range promises {
			rows[i] += " | " + cmp.Or(seen.cells[promise.text], "not tested")
		}
	}
	return strings.Join(append([]string{head, line, applied}, rows...), " |\n") + " |\n"
}

// holdReadme checks that README's table is what this run has seen. A run of a part of the tests says nothing.
func (r *results) holdReadme(t *testing.T, root string) {
	t.Helper()
	if flag.Lookup("test.run").Value.String() != "" || flag.Lookup("test.skip").Value.String() != "" {
		return
	}
	path := filepath.Join(root, "README.md")
	text, err := os.ReadFile(path)
	check(t, err)
	before, rest, begins := strings.Cut(string(text), tableBegin)
	old, after, ends := strings.Cut(rest, tableEnd)
	if !begins || !ends {
		t.Fatalf("README.md has no table: nothing between %q and %q", tableBegin, tableEnd)
	}
	table := r.table()
	switch {
	case old == table:
	case os.Getenv("UPDATE_GOLDEN") != "":
		check(t, os.WriteFile(path, []byte(before+tableBegin+table+tableEnd+after), 0o644))
	default:
		t.Errorf("README.md's table is not what was tested (UPDATE_GOLDEN=1 rewrites it):\n%s\nThis run says:\n%s", old, table)
	}
}
