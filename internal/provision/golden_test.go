package provision

import (
	"os"
	"path/filepath"
	"testing"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"sigs.k8s.io/yaml"

	"sharevol.dev/sharevol/internal/cluster"
)

// Each folder of testdata has a class and a claim, and the PersistentVolume that
// they make or the refusal that they get. UPDATE_GOLDEN=1 rewrites the latter two.
func TestGolden(t *testing.T) {
	classes, err := filepath.Glob("testdata/*/class.yaml")
	if err != nil || len(classes) == 0 {
		t.Fatal(classes, err)
	}
	for _, path := range classes {
		dir := filepath.Dir(path)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			options := Request{Class: &storagev1.StorageClass{}, Claim: &v1.PersistentVolumeClaim{}}
			read(t, path, options.Class)
			read(t, filepath.Join(dir, "claim.yaml"), options.Claim)
			options.Name = VolumePrefix + string(options.Claim.UID)

			f := newFixture(t, mountSecrets()...)
			pv, err := f.named(options.Class.Provisioner).Provision(ctx, options)
			var got, volume, refusal []byte
			if err != nil {
				refusal = []byte(err.Error() + "\n")
			} else {
				pv.Annotations[cluster.AnnShareID] = "of-the-share" // it is a random one
				volume, err = yaml.Marshal(pv)
				check(t, err)
			}
			for name, content := range map[string][]byte{"volume.yaml": volume, "refusal.txt": refusal} {
				compare(t, filepath.Join(dir, name), content)
				got = append(got, content...)
			}
			if made := len(f.shares.Dirs()); (made == 1) != (volume != nil) {
				t.Errorf("%d directories for\n%s", made, got)
			}
		})
	}
}

func read(t *testing.T, path string, object any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = yaml.UnmarshalStrict(data, object)
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// compare holds content against a golden file; nil is for a file that is not there.
func compare(t *testing.T, path string, content []byte) {
	t.Helper()
	if os.Getenv("UPDATE_GOLDEN") != "" {
		err := os.RemoveAll(path)
		if content != nil {
			err = os.WriteFile(path, content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		want, err = nil, nil
	}
	if err != nil {
		t.Fatal(err)
	}
	if string(content) != string(want) {
		t.Errorf("%s: got:\n%s\nwant:\n%s", path, content, want)
	}
}
