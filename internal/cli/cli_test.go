package cli

import (
	"bytes"
	"errors"
	"flag"
	"strings"
	"testing"
)

func newFlags() (*flag.FlagSet, *int) {
	flags := flag.NewFlagSet("program", flag.ContinueOnError)
	n := 5
	Int(flags, &n, "number", 1, 10, "a `number`")
	flags.Bool("yes", false, "a switch")
	Verbosity(flags)
	return flags, &n
}

func TestParse(t *testing.T) {
	flags, n := newFlags()
	if err := Parse(flags, []string{"--number=7", "-yes", "-v", "3"}); err != nil || *n != 7 {
		t.Errorf("%v, number %d", err, *n)
	}
}

func TestParseNamesEveryFault(t *testing.T) {
	flags, n := newFlags()
	err := Parse(flags, []string{"--unknown=1", "--number=11", "word", "--number", "x", "-v=loud", "--yes=perhaps", "---three", "-=x", "--", "more"})
	if err == nil || *n != 5 {
		t.Fatalf("%v, number %d", err, *n)
	}
	for _, want := range []string{"-unknown", `"11"`, "whole number from 1 to 10", `"word"`, `"x"`, `"loud"`, `"perhaps"`, "---three", "-=x", `"more"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
}

func TestHelp(t *testing.T) {
	flags, _ := newFlags()
	if err := Parse(flags, []string{"--help"}); !errors.Is(err, flag.ErrHelp) {
		t.Fatal(err)
	}
	var out bytes.Buffer
	PrintUsage(&out, flags, "It does things.")
	for _, want := range []string{"It does things.", "program [flags]", "-number", "(default 5)", "-v level"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("help lacks %q:\n%s", want, &out)
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
