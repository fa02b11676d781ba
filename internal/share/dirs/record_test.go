package dirs

import (
	"os"
	"strings"
	"testing"
)

func TestRecordsThatCanNotBeReadAreSomebodys(t *testing.T) {
	for name, text := range map[string]string{
		"another version": `{"v":2,"cluster":"c","volume":"pvc-a","subDir":"a","kind":"volume"}`,
		"another kind":    `{"v":1,"cluster":"` + cluster + `","volume":"pvc-a","subDir":"a","kind":"quota"}`,
		"another field":   `{"v":1,"cluster":"` + cluster + `","volume":"pvc-a","subDir":"a","kind":"volume","x":1}`,
		"another path":    `{"v":1,"cluster":"` + cluster + `","volume":"pvc-a","subDir":"b","kind":"volume"}`,
		"no volume":       `{"v":1,"cluster":"` + cluster + `","subDir":"a","kind":"volume"}`,
		"two":             `{"v":1,"subDir":"a","kind":"parent"}{}`,
		"garbage":         "../../data",
	} {
		t.Run(name, func(t *testing.T) {
			s := newShare(t)
			root := s.open(Options{})
			must(t, os.MkdirAll(s.in(folderName, ownersName), 0o700))
			s.write("x", "a", "data")
			must(t, os.Symlink(text, s.in(folderName, ownersName, recordName("a"))))
			before := s.tree()
			for _, want := range []Create{create("a"), retained("a", "pvc-a"), create("a/b")} {
				_, err := root.Create(ctx, want)
				is(t, err, ErrConflict, ErrUntouched)
				says(t, err, recordPath("a"))
			}
			is(t, root.Delete(ctx, create("a").target()), ErrConflict)
			_, err := root.Archive(ctx, create("a").target())
			is(t, err, ErrConflict)
			must(t, root.Drop(ctx, create("a").target()))
			must(t, root.Release(ctx, create("a").target()))
			if records, err := root.Records(ctx, cluster); err != nil || len(records) > 0 {
				t.Error(records, err)
			}
			if s.tree() != before {
				t.Errorf("the share changed from\n%s to\n%s", before, s.tree())
			}
		})
	}
}

// XFS has links of 1023 bytes; most subDirs must fit.
func TestRecordsAreShort(t *testing.T) {
	for _, sub := range []string{strings.Repeat("<&>", 280), strings.Repeat("x", 850)} {
		text, err := newRecord(kindVolume, sub, owner("pvc-"+cluster), true).text()
		must(t, err)
		if len(text) > 1023 || parseRecord(recordName(sub), text).SubDir != sub {
			t.Errorf("%d bytes: %s", len(text), text)
		}
	}
	_, err := newRecord(kindVolume, strings.Repeat("x", maxLink), owner("pvc"), true).text()
	says(t, err, "longer than 4095 bytes")
}

func TestOnlyTheOwnRecordIsDropped(t *testing.T) {
	s := newShare(t)
	root := s.open(Options{})
	must(t, newCreate(root, create("a")))
	c, err := root.begin(ctx, testID, false)
	must(t, err)
	defer c.end()
	before := s.tree()
	must(t, c.dropRecord(ctx, "a", kindVolume, owner("pvc-2")))
	must(t, c.dropRecord(ctx, "a", kindArchive, owner("pvc-a")))
	must(t, c.dropRecord(ctx, "b", kindVolume, owner("pvc-a")))
	if s.tree() != before {
		t.Errorf("the share changed from\n%s to\n%s", before, s.tree())
	}
}
