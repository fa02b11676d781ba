package fakeshare_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sharevol.dev/sharevol/internal/share"
	"sharevol.dev/sharevol/internal/share/dirs"
	"sharevol.dev/sharevol/internal/share/fakeshare"
	"sharevol.dev/sharevol/internal/share/helper/fakehelper"
	"sharevol.dev/sharevol/internal/volume"
)

func TestMain(m *testing.M) {
	fakehelper.Main()
	os.Exit(m.Run())
}

var (
	ctx = context.Background()
	nfs = share.Ref{Share: volume.Share{Server: "nfs", Path: "/srv"}}
)

// shares is what the fake has in common with share.Manager.
type shares interface {
	Create(context.Context, share.Ref, dirs.Create) (dirs.Created, error)
	Delete(context.Context, share.Ref, dirs.Target) error
	Archive(context.Context, share.Ref, dirs.Target) (string, error)
	Release(context.Context, share.Ref, dirs.Target) error
	Records(context.Context, share.Ref, string) ([]dirs.Record, error)
	Drop(context.Context, share.Ref, dirs.Target) error
	Serves(volume.Share) bool
}

// step does one thing and says how that came out.
type step func(s shares, id *string) string

func outcome(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, dirs.ErrTaken) && errors.Is(err, dirs.ErrConflict) && errors.Is(err, dirs.ErrUntouched):
		return "taken"
	case errors.Is(err, dirs.ErrConflict) && errors.Is(err, dirs.ErrUntouched):
		return "conflict"
	case errors.Is(err, dirs.ErrOtherShare) && errors.Is(err, dirs.ErrUntouched):
		return "other share"
	case errors.Is(err, dirs.ErrUntouched):
		return "untouched"
	}
	return err.Error()
}

func create(dir volume.SubDir, pv string, retain bool) step {
	return func(s shares, id *string) string {
		created, err := s.Create(ctx, nfs, dirs.Create{SubDir: dir, Owner: owner(pv), Retain: retain, Mode: 0o777, UID: -1, GID: -1})
		if err == nil {
			*id = created.ShareID
		}
		return fmt.Sprintf("%s, made %v", outcome(err), created.Made)
	}
}

func owner(pv string) dirs.Owner { return dirs.Owner{Cluster: "cluster", Volume: pv} }

func target(dir volume.SubDir, pv, id string) dirs.Target {
	return dirs.Target{SubDir: dir, Owner: owner(pv), ShareID: id}
}

func remove(dir volume.SubDir, pv string) step {
	return func(s shares, id *string) string { return outcome(s.Delete(ctx, nfs, target(dir, pv, *id))) }
}

func archive(dir volume.SubDir, pv string) step {
	return func(s shares, id *string) string {
		name, err := s.Archive(ctx, nfs, target(dir, pv, *id))
		return outcome(err) + " " + name
	}
}

func removeForeign(dir volume.SubDir, pv string) step {
	return func(s shares, id *string) string {
		return outcome(s.Delete(ctx, nfs, dirs.Target{SubDir: dir, Owner: owner(pv), Foreign: true}))
	}
}

func archiveForeign(dir volume.SubDir, pv string) step {
	return func(s shares, id *string) string {
		name, err := s.Archive(ctx, nfs, dirs.Target{SubDir: dir, Owner: owner(pv), Foreign: true})
		return outcome(err) + " " + name
	}
}

func release(dir volume.SubDir, pv string) step {
	return func(s shares, id *string) string { return outcome(s.Release(ctx, nfs, target(dir, pv, *id))) }
}

func drop(dir volume.SubDir, pv string) step {
	return func(s shares, id *string) string { return outcome(s.Drop(ctx, nfs, target(dir, pv, *id))) }
}

// With the wrong id of the share, or without one.
func mistaken(s shares, _ *string) string {
	_, err := s.Create(ctx, nfs, dirs.Create{SubDir: "new", Owner: owner("pv-9"), ShareID: "wrong", Mode: 0o777, UID: -1, GID: -1})
	return fmt.Sprint(outcome(err), outcome(s.Delete(ctx, nfs, target("a", "pv-1", "wrong"))), outcome(s.Delete(ctx, nfs, target("a", "pv-1", ""))))
}

func records(s shares, _ *string) string {
	all, err := s.Records(ctx, nfs, "cluster")
	var names []string
	for _, record := range all {
		names = append(names, fmt.Sprintf("%s of %s, %v", record.SubDir, record.Owner.Volume, record.Retain))
	}
	slices.Sort(names)
	return fmt.Sprint(outcome(err), names)
}

// The fake does what the real one does, step by step, to the volume directories.
func TestTheFakeIsAsTheRealOne(t *testing.T) {
	cases := map[string][]step{
		"delete":            {create("a", "pv-1", false), create("a", "pv-1", false), records, remove("a", "pv-1"), remove("a", "pv-1"), records},
		"other owner":       {create("a", "pv-1", false), create("a", "pv-2", false), remove("a", "pv-2"), archive("a", "pv-2"), release("a", "pv-2"), drop("a", "pv-2"), records},
		"above and below":   {create("a/b", "pv-1", false), create("a", "pv-2", false), create("a/b/c", "pv-3", false), create("a/c", "pv-4", false), records},
		"retained, shared":  {create("a", "pv-1", true), create("a", "pv-2", true), create("a", "pv-3", false), remove("a", "pv-1"), release("a", "pv-1"), records},
		"somebody's data":   {create("put", "pv-1", false), create("put", "pv-1", true), remove("put", "pv-1"), release("put", "pv-1"), remove("put", "pv-1"), records},
		"released":          {create("a", "pv-1", true), release("a", "pv-1"), release("a", "pv-1"), create("a", "pv-2", false), remove("a", "pv-1"), records},
		"archive":           {create("a/b", "pv-1", false), archive("a/b", "pv-1"), archive("a/b", "pv-1"), records, create("a/b", "pv-2", false), records},
		"drop":              {create("a", "pv-1", false), drop("a", "pv-1"), drop("a", "pv-1"), create("b", "pv-2", true), drop("b", "pv-2"), records},
		"another share":     {create("a", "pv-1", false), mistaken},
		"no id on it":       {mistaken, records},
		"foreign":           {removeForeign("a", "pv-1"), removeForeign("put", "pv-1"), removeForeign("put", "pv-1"), removeForeign("a", "pv-1"), records},
		"foreign archive":   {archiveForeign("put", "pv-1"), archiveForeign("put", "pv-1"), records},
		"foreign, taken":    {create("a/b", "pv-1", false), removeForeign("a", "pv-2"), removeForeign("a/b", "pv-2"), removeForeign("a/b/c", "pv-2"), archiveForeign("a/b", "pv-2"), records},
		"foreign, retained": {create("put", "pv-1", true), removeForeign("put", "pv-1"), archiveForeign("put", "pv-1"), release("put", "pv-1"), removeForeign("put", "pv-1")},
		"deleted, recycled": {create("a", "pv-1", false), remove("a", "pv-1"), create("a", "pv-2", false), remove("a", "pv-1"), records},
	}
	for name, steps := range cases {
		t.Run(name, func(t *testing.T) {
			fakehelper.CheckLeaks(t)
			export := t.TempDir()
			manager := share.NewManager(share.Options{Premounted: map[volume.Share]string{nfs.Share: export}})
			defer func() {
				if err := manager.Close(ctx); err != nil {
					t.Error(err)
				}
			}()
			if err := os.MkdirAll(filepath.Join(export, "put", "data"), 0o755); err != nil {
				t.Fatal(err)
			}
			fake := &fakeshare.Shares{}
			fake.Put(nfs.Share, "put")
			var realID, fakeID string
			for i, do := range steps {
				real, faked := do(manager, &realID), do(fake, &fakeID)
				if real != faked {
					t.Errorf("step %d: the real one: %s; the fake: %s", i, real, faked)
				}
				for _, dir := range []volume.SubDir{"a", "a/b", "a/c", "b", "put", "archived-pv-1/a/b", "archived-pv-1/put"} {
					_, err := os.Lstat(filepath.Join(export, string(dir)))
					if err != nil && !errors.Is(err, fs.ErrNotExist) {
						t.Fatal(err)
					}
					// The fake has no parents.
					inFake := slices.ContainsFunc(fake.Dirs(), func(source string) bool {
						return strings.HasPrefix(source+"/", volume.Directory{Share: nfs.Share, SubDir: dir}.DisplayPath()+"/")
					})
					if inFake != (err == nil) {
						t.Errorf("step %d: %s is there: %v, in the fake: %v", i, dir, err == nil, inFake)
					}
				}
			}
		})
	}
}
