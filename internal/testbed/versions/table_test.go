package versions

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"path"
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
	version string            // as the API server says it
	cells   map[string]string // by promise
}

func newResults() *results { return &results{seen: map[testbed.Release]*column{}} }

func (r *results) begin(release testbed.Release, version string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen[release] = &column{version: version, cells: map[string]string{}}
}

func (r *results) kept(release testbed.Release, promise, cell string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen[release].cells[promise] = cell
}

// table has a column for each release and a row for each promise.
// Of releases that were not tested it has what old, the table before, has.
func (r *results) table(old string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	head, line, applied := "| Kubernetes", "|---", "| applied"
	rows := make([]string, len(promises))
	for i, promise := range promises {
		rows[i] = "| " + promise.text
	}
	for at, one := range supported {
		seen := r.seen[one.release]
		if seen == nil {
			seen = columnOf(old, at, one.release.String())
		}
		head, line = head+" | "+seen.version, line+"|---"
		applied += " | `" + path.Join("manifests", one.kustomization) + "`"
		for i, promise := range promises {
			rows[i] += " | " + cmp.Or(seen.cells[promise.text], "not tested")
		}
	}
	return strings.Join(append([]string{head, line, applied}, rows...), " |\n") + " |\n"
}

// columnOf reads the column of a release, which is the one at a place, from a table.
func columnOf(table string, at int, release string) *column {
	c := &column{version: release, cells: map[string]string{}}
	lines := strings.Split(table, "\n")
	cells := func(line string) []string { return strings.Split(strings.TrimSuffix(line, " |"), " | ") }
	if head := cells(lines[0]); len(head) <= at+1 || head[at+1] != release {
		return c
	}
	for _, line := range lines[1:] {
		if row := cells(line); len(row) > at+1 {
			c.cells[strings.TrimPrefix(row[0], "| ")] = row[at+1]
		}
	}
	return c
}

// rewrite returns README's text with the table that this run makes.
func (r *results) rewrite(readme string) (string, error) {
	before, rest, begins := strings.Cut(readme, tableBegin)
	old, after, ends := strings.Cut(rest, tableEnd)
	if !begins || !ends {
		return "", fmt.Errorf("README.md has no table: nothing between %q and %q", tableBegin, tableEnd)
	}
	return before + tableBegin + r.table(old) + tableEnd + after, nil
}

// holdReadme checks that README's table is what this run has seen. A run of a part of the tests says nothing.
func (r *results) holdReadme(t *testing.T, root string) {
	t.Helper()
	if flag.Lookup("test.run").Value.String() != "" || flag.Lookup("test.skip").Value.String() != "" {
		return
	}
	file := filepath.Join(root, "README.md")
	old, err := os.ReadFile(file)
	check(t, err)
	wanted, err := r.rewrite(string(old))
	check(t, err)
	switch {
	case wanted == string(old):
	case os.Getenv("UPDATE_GOLDEN") != "":
		check(t, os.WriteFile(file, []byte(wanted), 0o644))
	default:
		t.Errorf("README.md's table is not what was tested (UPDATE_GOLDEN=1 rewrites it). This run says:\n%s", wanted)
	}
}

// What was not seen is not in the table as if it were.
func TestTable(t *testing.T) {
	r := newResults()
	r.begin(supported[0].release, "v1.2.3")
	r.kept(supported[0].release, promises[0].text, "yes")
	text, err := r.rewrite("before\n" + tableBegin + "an old table\n" + tableEnd + "after\n")
	check(t, err)
	lines := strings.Split(text, "\n")
	for line, want := range map[int]string{
		0: "before", 2: "| Kubernetes | v1.2.3 | v", 3: "|---|---|---|", 4: "| applied | `" + path.Join("manifests", supported[0].kustomization) + "` | ",
		5: "| " + promises[0].text + " | yes | not tested |", 6: "| " + promises[1].text + " | not tested | not tested |",
		len(lines) - 2: "after",
	} {
		if !strings.HasPrefix(lines[line], want) {
			t.Errorf("line %d is %q, not %q", line, lines[line], want)
		}
	}
	if strings.Contains(text, "an old table") {
		t.Errorf("the old table is still there:\n%s", text)
	}
	// Of what was not tested this time, README says what was seen before.
	again := newResults()
	again.begin(supported[1].release, "v1.2.4")
	again.kept(supported[1].release, promises[1].text, "still")
	named := strings.Replace(text, "v1.2.3", supported[0].release.String(), 1)
	text, err = again.rewrite(named)
	check(t, err)
	lines = strings.Split(text, "\n")
	for line, want := range map[int]string{
		2: "| Kubernetes | " + supported[0].release.String() + " | v1.2.4 | ",
		5: "| " + promises[0].text + " | yes | not tested | ", 6: "| " + promises[1].text + " | not tested | still | ",
	} {
		if !strings.HasPrefix(lines[line], want) {
			t.Errorf("line %d is %q, not %q", line, lines[line], want)
		}
	}
	if text, err := r.rewrite("no table\n"); err == nil {
		t.Errorf("without a table: %q", text)
	}
}
