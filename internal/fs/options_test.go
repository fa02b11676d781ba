package fs

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"sharevol.dev/sharevol/internal/volume"
)

func TestCheckMountOption(t *testing.T) {
	for _, refused := range []string{"addr=192.0.2.1", "mountaddr=x", "mounthost=x", "bind", "rbind", "move", "remount", "suid", "dev", "SUID", "hard,dev", "loop", "x-mount.mkdir", "a b", "a\nb", `a"b`, "", "hard,,soft"} {
		if nfs.Options.Check(refused) == nil {
			t.Errorf("%q passes", refused)
		}
	}
	for _, allowed := range []string{"hard", "nfsvers=4.1", "nosuid,nodev", "ro", "sec=krb5p", "clientaddr=192.0.2.1", "nolock"} {
		if err := nfs.Options.Check(allowed); err != nil {
			t.Errorf("%q: %v", allowed, err)
		}
	}
}

// What is NFS's own is refused for NFS alone, all else for every type.
func TestOptionsOfATypeWithoutRules(t *testing.T) {
	for option, refused := range map[string]bool{"addr=192.0.2.1": false, "mounthost=x": false, "bind": true, "dev": true, "X-mount.subdir=x": true} {
		if err := (OptionRules{}).Check(option); (err != nil) != refused {
			t.Errorf("%q: %v", option, err)
		}
	}
}

// Each option of a list is named by its place, in one line.
func TestCheckAll(t *testing.T) {
	errs := nfs.Options.CheckAll([]string{"hard", "suid,addr=192.0.2.1", "", "ro"}, field.NewPath("mountOptions"))
	want := `mountOptions[1]: Invalid value: "suid,addr=192.0.2.1": "suid" is refused: it redirects a mount or widens what it allows; ` +
		`"addr" is refused: it redirects a mount or widens what it allows; mountOptions[2]: Invalid value: "": must not be empty`
	if got := volume.Faults(errs); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if err := nfs.Options.Check(strings.Repeat("x", MaxMountOptions+1)); err == nil {
		t.Error("longer than mount(2) takes")
	}
}

func TestParseMountOptions(t *testing.T) {
	for value, want := range map[string][]string{
		"hard":                   {"hard"},
		" sec=krb5p , hard,ro\n": {"sec=krb5p", "hard", "ro"},
	} {
		if got, err := nfs.Options.ParseSecret(value); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %v", value, got, err)
		}
	}
}

// Every fault is named by its place, in one line, and nothing of the secret is shown.
func TestParseMountOptionsKeepsSecrets(t *testing.T) {
	const refused = " is refused: it redirects a mount or widens what it allows"
	const text = " must not contain white space, a control character or a quote"
	for value, want := range map[string]string{
		"":                           "option 1 must not be empty",
		"hard,":                      "option 2 must not be empty",
		"hard,ADDR=s3cret":           `option 2 "addr"` + refused,
		"s3cret,suid":                `option 2 "suid"` + refused,
		"X-mount.s3cret=s3cret":      `option 1 "x-mount."` + refused,
		"pass word=s3cret":           "option 1" + text,
		"s3cret\ns3cret":             "option 1" + text,
		`context="s3cret"`:           "option 1" + text,
		"x-mount.s3cret s3cret":      `option 1 "x-mount."` + refused,
		"dev,ro,addr=s3cret,s3 cret": `option 1 "dev"` + refused + `; option 3 "addr"` + refused + "; option 4" + text,
	} {
		options, err := nfs.Options.ParseSecret(value)
		if fmt.Sprint(err) != want || options != nil {
			t.Errorf("%q: %q, %v; want %s", value, options, err, want)
		}
		if strings.Contains(fmt.Sprint(err), "s3") || strings.Contains(fmt.Sprint(err), "\n") {
			t.Errorf("%q: the error shows the secret or has two lines: %v", value, err)
		}
	}
}
