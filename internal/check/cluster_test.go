package check

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"sharevol.dev/sharevol/internal/share/dirs"
	"sharevol.dev/sharevol/internal/volume"
)

func TestAClusterThatCanNotBeRead(t *testing.T) {
	for _, resource := range []string{"namespaces", "storageclasses", "persistentvolumes", "persistentvolumeclaims"} {
		f := newFixture(t)
		f.client = fake.NewClientset(f.objects...)
		f.client.PrependReactor("*", resource, func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, nil, apierrors.NewForbidden(v1.Resource(resource), "", errors.New("no"))
		})
		if _, err := f.runIn(ctx); !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v", resource, err)
		}
	}
	// Read once, and not again: what was found could be wrong.
	f := newFixture(t)
	f.export("nfs:/srv")
	f.add(class("gold", "nfs", "/srv", nil))
	f.client = fake.NewClientset(f.objects...)
	f.surveyed = func(string) {
		f.client.PrependReactor("list", "*", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, errors.New("gone") })
	}
	if report := f.run(); report.ExitStatus() != 2 {
		t.Errorf("%+v", report)
	}
}

func TestLongListsAreReadInParts(t *testing.T) {
	f := newFixture(t)
	f.client = fake.NewClientset(f.objects...)
	f.options.Shares = false
	asked := 0
	f.client.PrependReactor("list", "persistentvolumes", func(action clienttesting.Action) (bool, runtime.Object, error) {
		asked++
		options := action.(clienttesting.ListActionImpl).ListOptions
		list := &v1.PersistentVolumeList{}
		switch asked {
		case 1:
			list.Continue = "more"
		case 2:
			return true, nil, apierrors.NewResourceExpired("too old")
		case 3:
			if options.Limit != 0 || options.Continue != "" {
				t.Errorf("asked for %+v", options)
			}
		}
		for i := range 3 {
			list.Items = append(list.Items, *pv(fmt.Sprint("pvc-", i), "nfs", "/srv", fmt.Sprint(i), shareID, nil))
		}
		return true, list, nil
	})
	if report := f.run(); len(report.Volumes) != 3 || asked != 3 {
		t.Errorf("%d volumes after %d calls", len(report.Volumes), asked)
	}
}

// Shares within shares, volumes of other drivers, other names of a server.
func TestWhatIsNamed(t *testing.T) {
	nfs := volume.Share{Server: "nfs", Path: "/srv"}
	at := func(server, path, subDir string) volume.Directory {
		return volume.Directory{Share: volume.Share{Server: server, Path: path}, SubDir: volume.SubDir(subDir)}
	}
	s := &shareState{share: nfs, description: dirs.Description{ShareID: shareID}}
	all := servers{"nfs": {"192.0.2.1", "192.0.2.2"}, "192.0.2.1": {"192.0.2.1"}, "alias": {"192.0.2.2"}, "10.0.0.1": {"10.0.0.1"}, "gone": nil}
	for _, test := range []struct {
		volume volumeState
		at     string
		here   bool
	}{
		{volumeState{located: true, directory: at("NFS.", "/srv", "a/b")}, "a/b", true},
		{volumeState{located: true, directory: at("nfs", "/srv/a", "b")}, "a/b", true},
		{volumeState{located: true, directory: at("nfs", "/", "srv/a")}, "a", true},
		{volumeState{located: true, directory: at("nfs", "/srv", "")}, "", true},
		{volumeState{located: true, directory: at("nfs", "/", "")}, "", true},
		{volumeState{located: true, directory: at("nfs", "/srv2", "a")}, "", false},
		{volumeState{located: true, directory: at("nfs", "/srv", "../x")}, "", false},
		{volumeState{located: true, directory: at("10.0.0.1", "/", "a")}, "", false},
		{volumeState{located: true, directory: at("10.0.0.1", "/", "a"), shareID: shareID}, "a", true},
		{volumeState{directory: at("nfs", "/srv", "a")}, "", false},
		{volumeState{located: true, directory: at("192.0.2.1", "/srv", "a/b")}, "a/b", true},  // its address
		{volumeState{located: true, directory: at("alias", "/srv", "a/b")}, "a/b", true},      // another name of it
		{volumeState{located: true, directory: at("gone", "/srv", "a/b")}, "a/b", true},       // nobody can tell
		{volumeState{located: true, directory: at("never-seen", "/srv", "a/b")}, "a/b", true}, // neither
		{volumeState{located: true, directory: at("gone", "/another", "a/b")}, "", false},
	} {
		if at, here := s.place(test.volume, all); at != test.at || here != test.here {
			t.Errorf("%+v: %q, %v", test.volume.directory, at, here)
		}
	}
	if at, here := all.below(volume.Share{Server: "nfs", Path: "/"}, at("nfs", "/srv", "a")); at != "srv/a" || !here {
		t.Errorf("%q, %v", at, here)
	}
}

func TestShareWithinAShareIsNoOrphan(t *testing.T) {
	f := newFixture(t)
	srv := f.export("nfs:/srv")
	write(t, "x", srv, "inner", "v", "file")
	inner := filepath.Join(srv, "inner")
	f.nfs["nfs:/srv/inner"] = inner
	f.mounter.Export("nfs:/srv/inner", inner)
	f.add(class("a", "nfs", "/srv", nil), class("b", "nfs", "/srv/inner", nil))
	report := f.run()
	if len(report.Shares[0].Orphans) != 0 || len(report.Shares[1].Orphans) != 1 {
		t.Errorf("%+v\n%+v", report.Shares[0].Orphans, report.Shares[1].Orphans)
	}
}
