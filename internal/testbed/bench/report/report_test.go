package report

import (
	"strings"
	"testing"
)

func TestReach(t *testing.T) {
	row := Row{Area: "burst", What: "PVs/s", Ours: 231, Base: 300, Unit: "PV/s", BaseName: "floor"}
	for name, test := range map[string]struct {
		row   Row
		reach string
		ok    bool
	}{
		"enough":       {row.AtLeast(0.75), ">= 0.75", true},
		"too little":   {row.AtLeast(0.9), ">= 0.90", false},
		"few enough":   {row.AtMost(1.3), "<= 1.30", true},
		"too much":     {row.AtMost(0.5), "<= 0.50", false},
		"no baseline":  {Row{Ours: 1}.AtMost(2), "<= 2.00", false},
		"small enough": {Row{Ours: 14.9, Unit: "MB"}.Within(15), "<= 15.0 MB", true},
		"too big":      {Row{Ours: 15.1, Unit: "MB"}.Within(15), "<= 15.0 MB", false},
		"no reach":     {row.Only(), "", true},
	} {
		if test.row.Reach != test.reach || test.row.OK != test.ok {
			t.Errorf("%s: %+v", name, test.row)
		}
	}
}

func TestPrint(t *testing.T) {
	rows := []Row{
		Row{Area: "burst", What: "PVs/s", Ours: 231.4, Base: 300, Unit: "PV/s", BaseName: "floor", Note: "n"}.AtLeast(0.9),
		Row{Area: "growth", What: "resident", Ours: 31.25, Unit: "MB"}.Within(35),
		Row{Area: "growth", What: "start", Ours: 2.5, Unit: "s"}.Only(),
	}
	var text, markdown strings.Builder
	if err := Print(&text, rows); err != nil {
		t.Fatal(err)
	}
	if err := Markdown(&markdown, rows); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(text.String(), "\n")
	for i, want := range []string{
		"AREA WHAT SHAREVOL BASELINE RATIO REACH NOTE",
		"burst PVs/s 231 PV/s floor 300 0.77 >= 0.90 MISSED n",
		"growth resident 31.2 MB <= 35.0 MB met",
		"growth start 2.50 s", "",
	} {
		if got := strings.Join(strings.Fields(lines[i]), " "); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if at := strings.Index(lines[1], ">="); at < 0 || at != strings.Index(lines[2], "<=") {
		t.Errorf("not aligned:\n%s", text.String())
	}
	if want := "| burst | PVs/s | 231 PV/s | floor 300 | 0.77 | >= 0.90 | MISSED | n |\n"; !strings.Contains(markdown.String(), want) {
		t.Errorf("%s lacks %s", markdown.String(), want)
	}
}
