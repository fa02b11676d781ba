package check

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"
)

// mostLines is how many lines of one list the tables for people have.
const mostLines = 100

// WriteJSON writes the report for machines.
func (r *Report) WriteJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}

// WriteTable writes the report for people.
func (r *Report) WriteTable(w io.Writer) error {
	var text bytes.Buffer
	t := &tables{w: tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0), now: r.Time}
	t.classes(r)
	t.volumes(r)
	t.shares(r)
	for _, s := range r.Shares {
		t.found(s)
	}
	t.faults(r)
	if err := cmp.Or(t.err, t.w.Flush()); err != nil {
		return err
	}
	for line := range strings.Lines(text.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

// tables writes one table after the other, and remembers the first error.
type tables struct {
	w    *tabwriter.Writer
	now  time.Time
	rows int
	err  error
}

func (t *tables) line(text string) {
	if t.err == nil {
		_, t.err = fmt.Fprintln(t.w, text)
	}
}

// head begins a table.
func (t *tables) head(title string, columns ...string) {
	if t.err == nil {
		t.err = t.w.Flush() // the columns of each table have widths of their own
	}
	t.rows = 0
	t.line(title)
	if len(columns) > 0 {
		t.line("  " + strings.Join(columns, "\t"))
	}
}

// row writes a row, as long as the table is not too long.
func (t *tables) row(cells ...string) {
	if t.rows++; t.rows > mostLines {
		return
	}
	for i, cell := range cells {
		cells[i] = cmp.Or(visible(cell), "-")
	}
	t.line("  " + strings.Join(cells, "\t"))
}

// end ends a table that has more entries than rows.
func (t *tables) end(notListed int) {
	if more := max(0, t.rows-mostLines) + notListed; more > 0 {
		t.line(fmt.Sprintf("  and %d more", more))
	}
	t.line("")
}

func (t *tables) classes(r *Report) {
	if len(r.Classes) == 0 {
		t.head("No class has the provisioner " + r.Driver + ", or one that is adopted.")
		t.end(0)
		return
	}
	t.head("Classes", "NAME", "PROVISIONER", "SHARE", "ON DELETE", "SERVED")
	for _, class := range r.Classes {
		served := "yes"
		switch {
		case len(class.Faults) > 0:
			served = "no: " + count(len(class.Faults), "fault", "faults")
		case class.Elsewhere:
			served = "not here: its share is not premounted"
		}
		t.row(class.Name, class.Provisioner, class.Share, class.OnDelete, served)
	}
	t.end(0)
}

func (t *tables) volumes(r *Report) {
	if len(r.Volumes) == 0 {
		t.head("No volume has the driver " + r.Driver + ", or is one of a provisioner that is adopted.")
		t.end(0)
		return
	}
	t.head("Volumes", "NAME", "KIND", "PHASE", "CLAIM", "SHARE", "DIRECTORY", "ON DELETE", "")
	for _, v := range r.Volumes {
		faults := " "
		if len(v.Faults) > 0 {
			faults = count(len(v.Faults), "fault", "faults")
		}
		t.row(v.Name, v.Kind, v.Phase, v.Claim, v.Share, v.SubDir, v.OnDelete, faults)
	}
	t.end(0)
}

func (t *tables) shares(r *Report) {
	if len(r.Shares) == 0 {
		return
	}
	t.head("Shares", "SHARE", "REACHABLE", "NFS", "FREE", "OF", "FREE INODES", "VOLUMES", "MISSING", "ORPHANS", "ARCHIVES", "TRASH", "OTHER CLUSTERS'")
	for _, s := range r.Shares {
		if !s.Reachable {
			t.row(s.Share, "no", "", "", "", "", strconv.Itoa(s.Volumes), "?", "?", "?", "?", "?")
			continue
		}
		inodes := ""
		if s.Inodes > 0 {
			inodes = fmt.Sprintf("%d (%d %%)", s.FreeInodes, s.FreeInodes*100/s.Inodes)
		}
		free := amount(s.FreeBytes)
		if s.Bytes > 0 {
			free += fmt.Sprintf(" (%.0f %%)", float64(s.FreeBytes)*100/float64(s.Bytes))
		}
		t.row(s.Share, "yes", s.NFSVersion, free, amount(s.Bytes), inodes, strconv.Itoa(s.Volumes),
			strconv.Itoa(len(s.Missing)+s.NotListed.Missing), strconv.Itoa(len(s.Orphans)+s.NotListed.Orphans),
			strconv.Itoa(len(s.Archives)+s.NotListed.Archives), strconv.Itoa(len(s.Trash)+s.NotListed.Trash), strconv.Itoa(s.OtherClusters))
	}
	t.end(0)
}

// found writes what was found on one share.
func (t *tables) found(s *Share) {
	if len(s.Missing) > 0 {
		t.head("Volumes whose directory is not on "+s.Share, "VOLUME", "DIRECTORY", "WHY")
		for _, m := range s.Missing {
			t.row(m.Volume, m.SubDir, cmp.Or(m.Why, "there is nothing"))
		}
		t.end(s.NotListed.Missing)
	}
	if len(s.Orphans) > 0 {
		t.head("Directories on "+s.Share+" that no volume names", "DIRECTORY", "MADE FOR", "LAST CHANGED")
		for _, o := range s.Orphans {
			t.row(o.Path, o.Volume, t.age(o.Changed))
		}
		t.end(s.NotListed.Orphans)
	}
	t.kept("Archives on "+s.Share, s.Archives, s.NotListed.Archives)
	t.kept("Trash on "+s.Share, s.Trash, s.NotListed.Trash)
}

func (t *tables) kept(title string, list []Kept, notListed int) {
	if len(list) == 0 {
		return
	}
	t.head(title, "DIRECTORY", "VOLUME", "SINCE", "SIZE", "FILES", "")
	for _, k := range list {
		size, files, cut := amount(k.Bytes), strconv.FormatUint(k.Files, 10), " "
		if k.Cut != "" {
			size, files, cut = "at least "+size, "at least "+files, k.Cut
		}
		t.row(k.Path, k.Volume, t.age(k.Since), size, files, cut)
	}
	t.end(notListed)
}

// faults writes all that needs attention, and all that could not be checked.
func (t *tables) faults(r *Report) {
	var faults []string
	add := func(what, name string, all []string) {
		for _, fault := range all {
			faults = append(faults, what+" "+name+": "+fault)
		}
	}
	for _, class := range r.Classes {
		add("class", class.Name, class.Faults)
	}
	for _, v := range r.Volumes {
		add("volume", v.Name, v.Faults)
	}
	for _, s := range r.Shares {
		add("share", s.Share, s.Faults)
	}
	if len(faults) > 0 {
		t.head("What needs attention")
		for _, fault := range faults {
			t.row(fault)
		}
		t.end(0)
	}
	if len(r.Problems) > 0 {
		t.head("What could not be checked")
		for _, problem := range r.Problems {
			t.row(problem)
		}
		t.end(0)
	}
	if len(faults)+len(r.Problems) == 0 {
		t.head("All is well.")
	}
}

// age says how long ago something was.
func (t *tables) age(then time.Time) string {
	switch age := t.now.Sub(then); {
	case age < time.Minute:
		return "now"
	case age < time.Hour:
		return fmt.Sprintf("%dm ago", age/time.Minute)
	case age < 48*time.Hour:
		return fmt.Sprintf("%dh ago", age/time.Hour)
	default:
		return fmt.Sprintf("%dd ago", age/(24*time.Hour))
	}
}

// amount returns a number of bytes as people write it, in powers of 1024.
func amount(n uint64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n), -1
	for ; value >= 1024 && unit < len("KMGTPE")-1; unit++ {
		value /= 1024
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGTPE"[unit])
}

// visible returns a text as it is, or quoted if it could do something to a terminal
// or to the table. Names on a share can be anything.
func visible(text string) string {
	if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) && r != ' ' }) {
		return strconv.Quote(text)
	}
	return text
}
