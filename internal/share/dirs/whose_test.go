package dirs

import (
	"os"
	"testing"
)

// Whose a directory is, its mark says where its record is lost.
func TestSurveyAndLostRecords(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	theirs := create("theirs")
	theirs.Owner.Cluster = "another"
	for _, want := range []Create{create("ours"), theirs, create("trashed")} {
		must(t, newCreate(root, want))
		s.lose(string(want.SubDir))
	}
	s.write("x", "mine", "data")
	must(t, os.MkdirAll(s.in(folderName, trashName), 0o700))
	must(t, os.Rename(s.in("trashed"), s.in(folderName, trashName, "pvc-trashed")))
	before := s.tree()
	found := s.survey(ask())
	found.is(t, "orphan mine", "orphan ours pvc-ours", "trash .sharevol/trash/pvc-trashed pvc-trashed this cluster 0 in 0")
	if found.Foreign != 1 {
		t.Errorf("%d directories of other clusters", found.Foreign)
	}
	if after := s.tree(); after != before {
		t.Errorf("changed:\n%s\nto\n%s", before, after)
	}
}

// What is in another share is its own matter, and so is its root.
func TestSurveyAndSharesWithin(t *testing.T) {
	s := newShare(t)
	for _, sub := range []string{"top", "ns/inner", "named"} {
		s.nest(sub)
		s.write("x", sub, "orphan", "data")
		s.write("x", sub, "v", "data")
	}
	s.write("x", "ns", "v", "data")
	s.write("x", "ns", "orphan", "data")
	s.survey(ask("ns/v", "named/v")).is(t, "missing named/v named is the root of another share: it has a .sharevol of its own", "orphan ns/orphan")
}
