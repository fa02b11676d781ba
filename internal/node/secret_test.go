package node_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func withSecret(options string) func(*csi.NodePublishVolumeRequest) {
	return func(r *csi.NodePublishVolumeRequest) {
		r.Secrets = map[string]string{"mountOptions": options, "other": "x"}
	}
}

func TestMountOptionsFromTheSecret(t *testing.T) {
	f := newFixture(t)
	err := f.tryPublish(func(r *csi.NodePublishVolumeRequest) {
		withSecret("rw, timeo=100")(r)
		r.Readonly = true
	})
	if err != nil {
		t.Fatal(err)
	}
	// ro is the last, so that it counts.
	if got := f.optionsOf(t); !slices.Equal(got, []string{"rw", "timeo=100", "nfsvers=4.2", "hard", "ro"}) {
		t.Errorf("options %v", got)
	}
}

// What is in a secret is in no error, not even where mount(8) repeats it. That the log
// has nothing of the request is csiserver's test.
func TestNoSecretIsShown(t *testing.T) {
	f := newFixture(t)
	f.mounter.Fail(source, errors.New("mount.nfs: bad option password=hunter2, and hunter2 is none, nor is sesame"))
	for name, options := range map[string]string{
		"mount's words": "password=hunter2,sesame",
		"a fault":       "password=hunter2 x,sesame,addr=198.51.100.7",
	} {
		err := f.tryPublish(withSecret(options))
		if err == nil {
			t.Fatalf("%s: no error", name)
		}
		for _, secret := range []string{"hunter2", "sesame", "198.51.100.7"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%s: the secret is shown: %v", name, err)
			}
		}
	}
}

// The same options are refused as in a class.
func TestSecretCantRedirectAMount(t *testing.T) {
	f := newFixture(t)
	for _, option := range []string{"addr=198.51.100.7", "mountaddr=x", "mounthost=x", "bind", "rbind", "move", "remount", "suid", "dev", "X-mount.subdir=x", "hard,,soft", ""} {
		if err := f.tryPublish(withSecret(option)); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%q: %v", option, err)
		}
	}
	if calls := f.mounter.Calls(); len(calls) > 0 {
		t.Errorf("mounted %v", calls)
	}
}

func TestOneSecretBeginsWithAnother(t *testing.T) {
	f := newFixture(t)
	f.mounter.Fail(source, fmt.Errorf("mount.nfs: bad option clientaddr=10.1.2.34secret"))
	err := f.tryPublish(func(r *csi.NodePublishVolumeRequest) {
		r.Secrets = map[string]string{"mountOptions": "clientaddr=10.1.2.3,clientaddr=10.1.2.34secret"}
	})
	if strings.Contains(err.Error(), "4secret") {
		t.Errorf("the secret is shown: %v", err)
	}
}

// What is put in a secret's place is not looked through for secrets: the message would
// grow beyond all memory.
func TestHidingIsDoneOnce(t *testing.T) {
	f := newFixture(t)
	f.mounter.Fail(source, fmt.Errorf("mount nfs:/srv/secret: exit status 32"))
	err := f.tryPublish(func(r *csi.NodePublishVolumeRequest) {
		r.Secrets = map[string]string{"mountOptions": strings.TrimSuffix(strings.Repeat("from,secret,", 14), ",")}
	})
	if n := len(status.Convert(err).Message()); n > 1000 {
		t.Errorf("a secret of %d bytes makes a message of %d bytes (%s)", len("from,secret,")*14, n, status.Code(err))
	}
}

func TestASecretWidensNothing(t *testing.T) {
	f := newFixture(t)
	err := f.tryPublish(func(r *csi.NodePublishVolumeRequest) {
		r.VolumeCapability.GetMount().MountFlags = []string{"ro", "sec=krb5"}
		withSecret("rw,sec=sys")(r)
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := f.optionsOf(t); !slices.Equal(got, []string{"rw", "sec=sys", "ro", "sec=krb5"}) {
		t.Errorf("options %v", got)
	}
}
