// Package report is what the bench prints: a table of measurements, each beside its baseline and beside what
// is to be reached.
package report

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
)

// Row is one measurement against its baseline.
type Row struct {
	Area       string  // "burst", "idle", "delete", "growth", "spread", "publish", "rm", "footprint"
	What       string  // e.g. "PVs/s"
	Ours, Base float64 // Base is zero where there is no baseline
	Unit       string  // of both, e.g. "PV/s"
	BaseName   string  // e.g. "floor"
	Reach      string  // e.g. ">= 0.90", "<= 1.3", "<= 15 MB"; empty where nothing is to be reached
	OK         bool    // whether the reach is met; true where there is none
	Note       string
}

// Ratio is Ours to Base, zero where there is no baseline.
func (r Row) Ratio() float64 {
	if r.Base == 0 {
		return 0
	}
	return r.Ours / r.Base
}

// AtLeast returns the row with a reach: its ratio is to be at least this.
func (r Row) AtLeast(ratio float64) Row {
	r.Reach, r.OK = ">= "+number(ratio), r.Ratio() >= ratio
	return r
}

// AtMost returns the row with a reach: its ratio is to be at most this.
func (r Row) AtMost(ratio float64) Row {
	r.Reach, r.OK = "<= "+number(ratio), r.Base != 0 && r.Ratio() <= ratio
	return r
}

// Within returns the row with a reach: Ours is to be at most this.
func (r Row) Within(most float64) Row {
	r.Reach, r.OK = "<= "+number(most)+" "+r.Unit, r.Ours <= most
	return r
}

// Only returns the row without a reach: it is there to be looked at.
func (r Row) Only() Row {
	r.Reach, r.OK = "", true
	return r
}

// columns are what Print and Markdown show of a row.
var columns = []string{"area", "what", "sharevol", "baseline", "ratio", "reach", "", "note"}

func (r Row) cells() []string {
	cells := []string{r.Area, r.What, number(r.Ours) + " " + r.Unit, "", "", r.Reach, "", r.Note}
	if r.BaseName != "" {
		cells[3], cells[4] = r.BaseName+" "+number(r.Base), strconv.FormatFloat(r.Ratio(), 'f', 2, 64)
	}
	switch {
	case r.Reach == "":
	case r.OK:
		cells[6] = "met"
	default:
		cells[6] = "MISSED"
	}
	return cells
}

// number shows three digits or, of large numbers, all before the point.
func number(f float64) string {
	digits := 2
	for limit := 10.0; f >= limit && digits > 0; limit *= 10 {
		digits--
	}
	return strconv.FormatFloat(f, 'f', digits, 64)
}

// Print writes the table as aligned text.
func Print(w io.Writer, rows []Row) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, strings.ToUpper(strings.Join(columns, "\t")))
	for _, row := range rows {
		fmt.Fprintln(table, strings.Join(row.cells(), "\t"))
	}
	return table.Flush()
}

// Markdown writes the table for a README.
func Markdown(w io.Writer, rows []Row) error {
	lines := [][]string{columns, strings.Split(strings.Repeat("---,", len(columns)-1)+"---", ",")}
	for _, row := range rows {
		lines = append(lines, row.cells())
	}
	for _, cells := range lines {
		if _, err := fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | ")); err != nil {
			return err
		}
	}
	return nil
}
