package cli

import (
	"bytes"
	"errors"
	"flag"
	"strings"
	"testing"
)

type config struct {
	number int
	yes    bool
}

func (c *config) AddFlags(flags *flag.FlagSet) {
	c.number = 5
	Int(flags, &c.number, "number", 1, 10, "a `number`")
	flags.BoolVar(&c.yes, "yes", false, "a switch")
}

func (c *config) Validate() error {
	if !c.yes {
		return errors.New("--yes: must be given")
	}
	return nil
}

func read(args ...string) (c config, stdout string, proceed bool, err error) {
	var out bytes.Buffer
	proceed, err = Read(Program{Name: "program", Purpose: "It does things.", Version: "v1"}, &c, args, &out)
	return c, out.String(), proceed, err
}

func TestRead(t *testing.T) {
	if c, _, proceed, err := read("--number=7", "-yes", "-v", "3"); err != nil || !proceed || c.number != 7 {
		t.Errorf("%v, %v, %+v", proceed, err, c)
	}
}

func TestReadNamesEveryFault(t *testing.T) {
	c, _, proceed, err := read("--unknown=1", "--number=11", "word", "--number", "x", "-v=loud", "--version", "---three", "-=x", "--", "more")
	if err == nil || proceed || c.number != 5 {
		t.Fatalf("%v, %v, %+v", proceed, err, c)
	}
	for _, want := range []string{"-unknown", `"11"`, "whole number from 1 to 10", `"word"`, `"x"`, `"loud"`, "---three", "-=x", `"more"`, "--yes: must", "--help"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
}

func TestHelpAndVersion(t *testing.T) {
	for arg, wants := range map[string][]string{
		"--help":    {"It does things.", "program [flags]", "-number", "(default 5)", "-v level", "-version"},
		"--version": {"program v1"},
	} {
		_, stdout, proceed, err := read(arg)
		if err != nil || proceed {
			t.Errorf("%s: %v, %v", arg, proceed, err)
		}
		for _, want := range wants {
			if !strings.Contains(stdout, want) {
				t.Errorf("%s lacks %q:\n%s", arg, want, stdout)
			}
		}
	}
}

func TestCheckDriverName(t *testing.T) {
	for _, good := range []string{"csi.sharevol.dev", "nfs.csi.k8s.io", "a"} {
		if err := CheckDriverName(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "-a", "a-", "a b", "a/b", "../x", "a..b", "a.-b", "a-.b", "Csi.Example.Com", strings.Repeat("a", 64)} {
		if err := CheckDriverName(bad); err == nil || !strings.Contains(err.Error(), "--driver-name") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestCheckAddress(t *testing.T) {
	for _, good := range []string{"127.0.0.1:80", ":0", "[::1]:65535", "localhost:1"} {
		if err := CheckAddress("http-address", good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "127.0.0.1", ":http", ":65536", "::1:80"} {
		if err := CheckAddress("http-address", bad); err == nil || !strings.Contains(err.Error(), "--http-address") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
