package volume

import (
	"path"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// FuzzParseSubDir: whatever is accepted stays strictly below the share root.
func FuzzParseSubDir(f *testing.F) {
	for _, seed := range []string{"pvc-1", "a/b", "../x", "/x", `..\x`, "a/./b", ".sharevol/id"} {
		f.Add(seed)
	}
	share := Share{Server: "s", Path: "/srv/share"}
	f.Fuzz(func(t *testing.T, in string) {
		dir, err := ParseSubDir(in)
		if err != nil {
			return
		}
		if got := (Directory{share, dir}).DisplayPath(); got != "s:/srv/share/"+in {
			t.Errorf("ParseSubDir accepts %q, which leads to %q", in, got)
		}
	})
}

// A variable ends at the first brace, so that outside of these a slash is the class's own.
var anyVariable = regexp.MustCompile(`(?s)\$\{.*?\}`)

// FuzzRender: whatever a class and a claim say, the result is a fault or a path
// strictly below the share root, with no level that the class did not allow.
func FuzzRender(f *testing.F) {
	f.Add("${pvc.metadata.namespace}/${pvc.metadata.labels['k']}", "ns", "name", "pvc-1", "label", "annotation", false)
	f.Add("${.PVC.annotations.k}/x", "ns", "name", "pvc-1", "../..", "../../etc", true)
	f.Add("a${pvc.metadata.annotations['k']}", "..", "/", "", ".sharevol/id", "/.sharevol", true)
	f.Add("${pvc.metadata.labels['k']}${.PVC.labels.k}/${.PVC.annotations.k/l}", "ns", "name", "pvc-1", ".", "", false)
	f.Add(".${pvc.metadata.annotations['k']}./${.PVC.name}", "ns", "${pv.metadata.name}", "pvc-1", "", "", true)
	f.Add("..${pv.metadata.name}/x", "ns", "name", "/a", "b\x00", "c\n", false)
	f.Fuzz(func(t *testing.T, template, namespace, name, volume, label, annotation string, slashes bool) {
		claim := Claim{
			Namespace: namespace, Name: name, Volume: volume,
			Labels:      map[string]string{"k": label, "k/l": annotation},
			Annotations: map[string]string{"k": annotation, "k/l": label},
		}
		for _, parameter := range []string{"subDir", "pathPattern"} {
			c, faults := class(parameter, template, "subDirAllowSlashes", strconv.FormatBool(slashes))
			r, errs := c.Render(claim) // even of a class with faults, it must return
			for _, line := range append(faults, lines(errs)...) {
				if strings.ContainsFunc(line, breaksLines) {
					t.Errorf("a fault of more than one line: %q", line)
				}
			}
			if len(faults) == 0 && len(errs) == 0 {
				checkRendered(t, c.SubDir.String(), string(r.SubDir), slashes)
			}
		}
	})
}

func checkRendered(t *testing.T, template, dir string, slashes bool) {
	if _, err := ParseSubDir(dir); err != nil {
		t.Errorf("%q renders %q: %v", template, dir, err)
	}
	if joined := path.Join("/root", dir); joined != "/root/"+dir {
		t.Errorf("%q renders %q, which leads to %q", template, dir, joined)
	}
	if strings.HasPrefix(dir, ".sharevol") {
		t.Errorf("%q renders %q, which is reserved", template, dir)
	}
	levels := strings.Count(anyVariable.ReplaceAllString(template, ""), "/")
	if got := strings.Count(dir, "/"); got < levels || got > levels && !slashes {
		t.Errorf("%q renders %q: %d slashes, not the template's %d", template, dir, got, levels)
	}
}
