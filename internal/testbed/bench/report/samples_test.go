package report

import (
	"os"
	"path/filepath"
	"testing"
)

func TestSamples(t *testing.T) {
	dir := t.TempDir()
	s := NewSamples(dir)
	for _, value := range []float64{4, 1, 3, 2, 5} {
		if err := s.Add("ours", "burst/size=0", 1000, map[string]float64{"PVs/s": value, "bound/s": 7}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Add("floor", "burst/size=0", 1000, map[string]float64{"PVs/s": 6}); err != nil {
		t.Fatal(err)
	}
	if row := s.Compare("burst", "PVs/s", "burst/size=0", "PVs/s", "ours", "floor"); row.Ours != 3 || row.Base != 6 || row.Ratio() != 0.5 || !row.OK {
		t.Errorf("%+v", row)
	}
	if median, within := s.Median("ours", "idle", "ms"); median != 0 || within != "" {
		t.Errorf("of nothing: %v %s", median, within)
	}
	if median, within := s.Median("ours", "burst/size=0", "bound/s"); median != 7 || within != "0%" {
		t.Errorf("%v %s", median, within)
	}
	data, err := os.ReadFile(filepath.Join(dir, "floor.txt"))
	if want := "BenchmarkBurst/size=0 1000 6 PVs/s\n"; err != nil || string(data) != want {
		t.Errorf("%v %q", err, data)
	}
}
